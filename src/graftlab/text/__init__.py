"""Conversations to token ids and labels, built together."""
