"""The files of conf/ as people wrote them: options, values and the comments beside them.

The pages of docs/reference/ are made from it (docs/reference.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from graftlab.files.paths import conf_dir

CONF = conf_dir()


@dataclass(kw_only=True, slots=True)
class Leaf:
    """A line of a YAML file: a value, and the comment beside it."""

    value: Any
    note: str = ""


@dataclass(kw_only=True, slots=True)
class Option:
    """What one file of `conf/` says, with the files that it takes over."""

    name: str
    about: str = ""
    """The comment at its head, as one paragraph."""
    commands: list[str] = field(default_factory=list)
    """Indented lines of that comment."""
    package: str = ""
    """Where its keys belong, when that is not its group: `_global_`, or a dotted place."""
    schema: str = ""
    """The choice whose keys it has, in groups of several classes."""
    takes: dict[str, Leaf] = field(default_factory=dict)
    """Group -> the option that this file chooses there."""
    values: dict[str, Leaf] = field(default_factory=dict)
    """Dotted key -> value, in the order of the file."""


def read_option(path: Path) -> Option:
    """The file at `path`. Raises OSError where it, or one that it takes over, is missing."""
    text = path.read_text(encoding="utf-8")
    option = Option(name=path.stem)
    read_head(text, option)
    lines, root = text.splitlines(), yaml.compose(text)
    own: dict[str, Leaf] = {}
    inherited: dict[str, Leaf] = {}
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "defaults":
            for entry in value.value:
                read_default(entry, lines, path, option, inherited)
        elif key.value != "hydra":
            own |= dict(leaves(key, value, lines))
    option.values = inherited | own
    return option


def read_head(text: str, option: Option) -> None:
    """The comment that a file begins with."""
    prose: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        said = line[1:]
        if said.strip().startswith("@package"):
            option.package = said.split()[1]
        elif said.startswith("   "):
            option.commands.append(said.strip())
        else:
            prose.append(said.strip())
    option.about = " ".join(prose).removesuffix(":")


def read_default(
    entry: yaml.Node, lines: list[str], path: Path, option: Option, inherited: dict[str, Leaf]
) -> None:
    """One entry of a `defaults` list: the schema, a choice in a group, or a file to take over."""
    if isinstance(entry, yaml.MappingNode):
        ((key, value),) = entry.value
        group = key.value.removeprefix("override ").lstrip("/")
        if not group.startswith("hydra"):
            option.takes[group] = Leaf(value=plain_value(value), note=comment(value, lines))
        return
    name, _, place = str(entry.value).partition("@")
    if name.lstrip("/").startswith("schema/"):
        option.schema = name.rpartition("/")[2]
    elif name != "_self_" and "hydra" not in name + place:
        root = CONF if name.startswith("/") else path.parent
        other = read_option(root / f"{name.lstrip('/')}.yaml")
        option.schema = option.schema or other.schema
        option.package = option.package or other.package
        option.takes |= other.takes
        inherited |= other.values


def leaves(
    key: yaml.Node, value: yaml.Node, lines: list[str], start: str = ""
) -> Iterator[tuple[str, Leaf]]:
    """The dotted keys under a node."""
    place = f"{start}{key.value}"
    if isinstance(value, yaml.MappingNode) and value.value:
        for inner, below in value.value:
            yield from leaves(inner, below, lines, f"{place}.")
    else:
        block = isinstance(value, yaml.SequenceNode) and not value.flow_style
        yield place, Leaf(value=plain_value(value), note=comment(key if block else value, lines))


def plain_value(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def comment(node: yaml.Node, lines: list[str]) -> str:
    """What stands behind `#` on the line where a node ends."""
    rest = (
        lines[node.end_mark.line][node.end_mark.column :] if node.end_mark.line < len(lines) else ""
    )
    return rest.partition("#")[2].strip()
