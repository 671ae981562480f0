"""Whether an export answers as it was trained: rows, measure, verdict and its reasons."""
