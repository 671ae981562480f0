"""Where things are kept that can be made again: tokens, prepared data sets, a teacher's answers."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """`$GRAFTLAB_CACHE`, or `~/.cache/graftlab`."""
    return Path(os.environ.get("GRAFTLAB_CACHE") or Path.home() / ".cache" / "graftlab")
