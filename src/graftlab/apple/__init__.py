"""Apple's foundation model."""
