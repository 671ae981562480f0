"""Regular expressions of metrics: those of keys and of references."""

from __future__ import annotations

from graftlab.errors import ConfigError
from graftlab.text import patterns
from graftlab.text.patterns import PatternProblem


def require_pattern(key: str, pattern: str) -> None:
    """Raise ConfigError for one that is no regular expression."""
    try:
        patterns.compiled(pattern, lines=True)
    except PatternProblem as error:
        raise ConfigError(f"{key}: {error}.") from error


def is_found(key: str, pattern: str, text: str, *, whole: bool = False) -> bool:
    """Whether it is in a reply, or is all of it. Raises ConfigError where that takes long."""
    try:
        return patterns.is_found(pattern, text, whole=whole, lines=True)
    except PatternProblem as error:
        raise ConfigError(f"{key}: {error}. All replies are in the cache.") from error
