"""Frozen weights kept in 4 or 8 bits, widened inside each product and never stored wide."""
