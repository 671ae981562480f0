"""Optimizers, one choice per file."""
