"""What the door makes of words, without running anything or looking for files."""

from __future__ import annotations

from typing import Any

from graftlab.config import build, compose
from graftlab.door.keys import check_words
from graftlab.door.menu import menu
from graftlab.door.words import read_words
from graftlab.registry import conf_dir, dump


def composed(verb: str, *typed: str) -> dict[str, Any]:
    """The specification that the door makes of words, as plain content."""
    choices = menu(verb, [conf_dir()])
    ready = check_words(read_words(typed, verb), choices, multirun=False)
    cfg = compose(verb, [word.hydra for word in ready])
    if verb in ("train", "plan"):
        cfg.run_dir = "run"
    return dump(build(cfg))


def flat(content: dict[str, Any], start: str = "") -> dict[str, Any]:
    """Dotted key -> value."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        inner = isinstance(value, dict) and value
        found |= flat(value, f"{start}{key}.") if inner else {f"{start}{key}": value}
    return found
