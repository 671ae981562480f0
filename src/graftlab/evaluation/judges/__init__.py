"""Models that compare two replies: one file for each choice of the group `judge`."""
