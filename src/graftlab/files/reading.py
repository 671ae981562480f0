"""YAML and JSON of others, read with limits on size, depth and aliases; nothing in them can run.

YAML is judged by its events first, one at a time: deep nesting would end libyaml's composer with a
segfault, and a few aliases can stand for 10^9 nodes. JSON is judged after the C scanner, whose own
limit lets values through on which code that walks them fails.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 100
"""Levels of lists and mappings inside each other that are read."""
TOO_DEEP = f"nested more than {DEEPEST} levels deep"
MOST_NODES = 100_000
"""Nodes of a YAML file, each alias counted as all that it stands for."""
LARGEST_YAML = 4 * 2**20
"""Bytes of a YAML file."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableError(ValueError):
    """A file that is not what its name says, or beyond the limits; what reads a file names it."""


def load_yaml(text: str) -> Any:
    """The value of a YAML document; tags that name Python objects are refused.

    Raises UnreadableError.
    """
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_YAML:
        raise UnreadableError(f"is larger than {LARGEST_YAML >> 20} MiB")
    try:
        _judge(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UnreadableError(f"is no YAML: {' '.join(str(error).split())}") from error
    except (ValueError, RecursionError, TypeError) as error:  # such as a date of month 13
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"is no YAML: {error}") from error


def read_yaml(file: Path) -> Any:
    """The value of a YAML file. Raises OSError, or UnreadableError naming the file."""
    text = read_text(file, most=LARGEST_YAML)
    try:
        return load_yaml(text)
    except UnreadableError as error:
        raise UnreadableError(f"{file} {error}") from error


def read_text(file: Path, *, most: int) -> str:
    """A file of at most `most` bytes. Raises OSError, or UnreadableError naming the file.

    A link to a device or a pipe is refused: reading either may never end.
    """
    about = file.stat()
    if not stat.S_ISREG(about.st_mode):
        raise UnreadableError(f"{file} is no regular file")
    if about.st_size > most:
        raise UnreadableError(f"{file} is larger than {most >> 20} MiB")
    with file.open("rb") as stream:
        data = stream.read(most + 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{file} is not UTF-8") from error


def load_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises UnreadableError; a `json.JSONDecodeError` is its cause."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise UnreadableError(f"is {TOO_DEEP}") from error
    except ValueError as error:  # no JSON, no UTF-8, or an integer of over 4,300 digits
        raise UnreadableError(f"is no JSON: {error}") from error
    brackets = (b"[", b"{") if isinstance(text, bytes) else ("[", "{")
    if sum(map(text.count, brackets)) > DEEPEST and deeper_than(value, DEEPEST):  # type: ignore[arg-type]
        raise UnreadableError(f"is {TOO_DEEP}")
    return value


def read_json(file: Path) -> Any:
    """The value of a JSON file. Raises OSError, or UnreadableError naming the file."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise UnreadableError(f"{file} is no regular file")
    try:
        return load_json(file.read_bytes())
    except UnreadableError as error:
        raise UnreadableError(f"{file} {error}") from error


def deeper_than(value: Any, levels: int) -> bool:
    """Whether lists and dictionaries stand inside each other more than `levels` deep."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        if not layer:
            return False
        layer = [
            item
            for holder in layer
            for item in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(item, dict | list)
        ]
    return bool(layer)


def _judge(text: str) -> None:
    """Raise UnreadableError for a document that is too deep or stands for too many nodes."""
    sizes: dict[str, int] = {}  # anchor -> nodes that an alias of it stands for
    open_nodes: list[tuple[str | None, int]] = []  # (anchor, nodes counted before it)
    nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UnreadableError("is no YAML: an alias stands inside what it names")
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, nodes))
            nodes += 1
            if len(open_nodes) > DEEPEST:
                raise UnreadableError(f"is {TOO_DEEP}")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = nodes - before
        if nodes > MOST_NODES:
            raise UnreadableError(f"stands for more than {MOST_NODES:,} nodes, aliases resolved")
