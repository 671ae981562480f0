"""The programs that answer with an export, each behind the same few questions (`base.py`)."""
