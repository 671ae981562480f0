"""Adapters of Apple's model in the formats of other runtimes, and models for Core ML."""
