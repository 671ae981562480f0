"""Files that are read, written, checked and locked: what every room uses, and imports nothing."""
