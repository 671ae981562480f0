"""What happens around an optimizer step, in this order; each is one small Lightning callback.

    Recorder       measures the step and opens its row
    Validator      validation loss into the row
    Measures       replies to held-out prompts, measured, into the row
    Sampler        replies to held-out prompts, shown to the callbacks of the group
    Stopper        the step, shown to the callbacks of the group; the time limit: may end the run
    Signals        SIGTERM or Ctrl-C arrived: ends the run, resumable
    Scribe         the row goes to train_log.csv and the loggers
    EpochWriters   checkpoints of another make, where the adapter brings a writer
    Checkpointer   saves, when due or when the run ends
    ProgressBar    shows it

All of them act in `on_train_batch_end` of the micro-batch that ends an optimizer step, so a
checkpoint always holds a whole step with everything that belongs to it, and a resumed run goes on
with the next one. Early stopping, plateau, repetition and a user's own are choices of the group
`callbacks` (`spec.py`), which know nothing of Lightning.
"""
