"""Adapters in the formats of other runtimes, each read back."""
