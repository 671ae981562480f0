"""Paths in a run's configuration: found again from elsewhere, and the same wherever a run began.

run.yaml holds them in full. A run's identity takes those below the current folder relative to it,
so that a project which was moved or cloned still knows its runs, and they are found from another
folder, too. What is no file here, such as the id of a model on the hub, stays as it was typed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from glob import has_magic, iglob
from pathlib import Path
from typing import Any

KEYS = frozenset(
    {
        *("path", "of", "template", "train", "valid", "corpus", "files", "against"),
        *("from_run", "teacher", "base", "schema", "anchors"),
    }
)
"""Last parts of the keys that may hold a path, a glob or a list of them."""

TEMPLATES = ("chatml", "gemma")
"""Chat templates with a name: what `template` may say beside a path."""


def absolute(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration (`registry.dump`) with the paths of files that are there in full."""
    return _walked(config, _in_full)


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with what lies below the current folder relative to it."""
    here = os.getcwd()
    return _walked(absolute(config), lambda text: _below(text, here))


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with every path left out: for where the files' content is compared besides."""
    return _walked(config, lambda text: "")


def relocated(config: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """What a run's configuration says now that the run lies in `run`: whatever was moved along
    with it, as a project is with its outputs, is meant where it lies now. What stayed where it was,
    as it does when a run alone was copied, is still meant there.
    """
    then, now = _parts(config.get("run_dir")), Path(os.path.abspath(run)).parts
    shared = 0
    while shared < min(len(then), len(now)) and then[-1 - shared] == now[-1 - shared]:
        shared += 1
    before, after = then[: len(then) - shared], now[: len(now) - shared]
    if not then or before == after or len(before) < 2:
        return dict(config)

    def moved(text: str) -> str:
        parts = Path(text).parts
        if parts[: len(before)] != before:
            return text
        there = str(Path(*after, *parts[len(before) :]))
        return text if _is_there(text) and not _is_there(there) else there

    return _walked(config, moved) | {"run_dir": str(run)}


def _walked(config: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The configuration with every path put through `change`."""

    def value_of(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: value_of(k, v) for k, v in value.items()}
        if isinstance(value, list):
            return [value_of(key, item) for item in value]
        is_path = key in KEYS and isinstance(value, str) and value not in TEMPLATES
        return change(value) if is_path else value

    return {key: value_of(key, value) for key, value in config.items()}


def _in_full(text: str) -> str:
    try:
        path = os.path.expanduser(text)
        return os.path.abspath(path) if _is_there(path) else text
    except ValueError:  # a text that is no name of a file
        return text


def _is_there(path: str) -> bool:
    """Whether files of this name, or found by this glob, are there."""
    try:
        return os.path.exists(path) or (has_magic(path) and any(iglob(path)))
    except (OSError, ValueError):
        return False


def _below(text: str, here: str) -> str:
    inside = os.path.isabs(text) and os.path.commonpath([here, os.path.normpath(text)]) == here
    return os.path.relpath(text, here) if inside and here != os.sep else text


def _parts(folder: Any) -> tuple[str, ...]:
    path = Path(folder) if isinstance(folder, str) else Path()
    return path.parts if path.is_absolute() else ()


def conf_dir() -> Path:
    """The folder of YAML groups: inside the installed package, or at the root of the repository."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf"
