"""Decoding: sampling parameters and side-by-side replies."""
