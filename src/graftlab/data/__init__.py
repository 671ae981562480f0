"""Records, no tensors: read conversations, check them, split them."""
