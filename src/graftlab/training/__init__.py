"""Lightning lives here: module, optimizer, precision, callbacks, checkpoints."""
