"""Behind `graftlab` and `train.py`: from words on a command line to a checked spec, and its run.

words      what a person types, as Hydra's grammar reads it (free text and paths quoted)
menu       which groups, options and keys a verb has
keys       every key and option checked against the menu, all mistakes in one message
explain    errors of Hydra and OmegaConf in plain words
verify     compose, build, check files: before anything runs
launch     one run or a sweep through Hydra, in the right folder
helps      `--help`
"""
