"""Sweeps: many runs from one line. Spaces, proposals, verdicts at rungs and shared trunks."""
