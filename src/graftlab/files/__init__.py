"""Files that are read, written, checked and locked: what every room uses; imports errors alone."""
