"""The embedded default, made from nothing: our own text, a tokenizer, a tiny base, demo data."""
