"""What the command line makes of words, without running anything or looking for files."""

from __future__ import annotations

from typing import Any

from graftlab.cli.compose import build, compose
from graftlab.cli.overrides import read_arguments
from graftlab.cli.schema import read_schema
from graftlab.cli.validate import check_arguments
from graftlab.files.paths import conf_dir
from graftlab.registry import dump


def composed(verb: str, *typed: str) -> dict[str, Any]:
    """The specification that the command line makes of words, as plain content."""
    choices = read_schema(verb, [conf_dir()])
    ready = check_arguments(read_arguments(typed, verb), choices, multirun=False)
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
