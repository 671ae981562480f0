"""Behind `graftlab` and `train.py`: from words on a command line to a checked spec, and its run.

overrides  what a person types, as Hydra's grammar reads it (free text and paths quoted)
schema     which groups, options and keys a verb has
validate   every key and option checked against the schema, all mistakes in one message
errors     errors of Hydra and OmegaConf in plain words
preflight  compose, build, check files: before anything runs
launch     one job, or several in turn, in the right folder
sweep      the jobs of `train -m`
help       `--help`
"""
