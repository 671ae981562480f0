"""Regular expressions of metrics, compiled once."""

from __future__ import annotations

import re
from functools import lru_cache

from graftlab.errors import ConfigError


def compiled(key: str, pattern: str | None) -> re.Pattern[str] | None:
    """The expression of a key. Raises ConfigError for one that is none."""
    if pattern is None:
        return None
    try:
        return _compiled(pattern)
    except re.error as error:
        raise ConfigError(f"{key}={pattern} is no regular expression: {error}.") from error


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.M)
