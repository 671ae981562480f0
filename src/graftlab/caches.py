"""Where things are kept that can be made again: tokens, prepared data sets, a teacher's answers."""

from __future__ import annotations

import os
from pathlib import Path

from graftlab.errors import ConfigError


def default_cache() -> Path:
    """`$GRAFTLAB_CACHE`, or `~/.cache/graftlab`. Raises ConfigError where there is no home."""
    if told := os.environ.get("GRAFTLAB_CACHE"):
        return Path(told)
    try:
        return Path.home() / ".cache" / "graftlab"
    except RuntimeError as error:  # a user id that no account has, and no $HOME
        raise ConfigError(
            "This user has no home folder for the cache: let GRAFTLAB_CACHE name a folder."
        ) from error
