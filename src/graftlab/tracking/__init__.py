"""Loggers and the files a run leaves behind."""
