"""What a reply scores: one file for each choice of the group `metrics`."""
