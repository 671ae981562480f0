"""Errors of Hydra and OmegaConf in plain words: the key, and what would be right."""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from graftlab.cli.schema import Schema
from graftlab.cli.validate import unknown_key
from graftlab.errors import AUTO, NumberOrAuto, WholeOrAuto
from graftlab.hints import nested_spec
from graftlab.plugins import OWN_CLASS
from graftlab.registry import choice_of, choices, field_types, group_at, groups, place_of

if TYPE_CHECKING:
    from hydra.errors import MissingConfigException

_KINDS = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "text",
    type(None): "null",
}


def explain(error: Exception, schema: Schema, overrides: Sequence[str]) -> str | None:
    """One message for people, or None when the error is not about the configuration."""
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        MissingMandatoryValue,
        OmegaConfBaseException,
        ValidationError,
    )

    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", None) or "")
    if isinstance(cause, MissingMandatoryValue):
        return f"{key} is not set: give {key}=VALUE."
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and key:
        return _in_file(error) + _foreign_key(key, cause, schema)
    if isinstance(cause, ValidationError) and key:
        return _in_file(error) + _wrong_type(key, schema, overrides)
    if isinstance(error, MissingConfigException) and (lost := _lost_class(error)) is not None:
        return lost
    if "instantiate abstract class" in str(cause) and key in schema.groups:
        inside = [o for o in overrides if place_of(o.partition("=")[0]).startswith(f"{key}.")]
        if inside:
            return switched_off(inside[0], key, schema)
    if (off := re.match(r"Could not override '(\w+)@([\w.]+)'", str(error))) is not None:
        parent = off[2].rpartition(".")[0]
        return switched_off(off[1], parent, schema)
    if isinstance(error, HydraException | OmegaConfBaseException):
        text = _without_advice(str(error), str(cause) if cause is not error else "")
        return f"{text}\n{OWN_CLASS}" if re.search("Key '[^']+' not in", text) else text
    return None


def _lost_class(error: MissingConfigException) -> str | None:
    """An option file whose class nobody has imported."""
    parts = (error.missing_cfg_file or "").split("/")
    if parts[0] != "schema" or len(parts) != 3:
        return None
    return f"{parts[1]}={parts[2]}: there is no class `{parts[2]}`. {OWN_CLASS}"


def _foreign_key(key: str, cause: Any, schema: Schema) -> str:
    """A key that the chosen class lacks: it may belong to another choice of its group."""
    if schema.find(key) is None:
        return unknown_key(key, schema)
    parent, _, name = key.rpartition(".")
    group = group_at(parent)
    chosen = choice_of(cause.object_type) if isinstance(cause.object_type, type) else None
    owners = [
        f"{group}={option}" for option, cls in choices(group).items() if name in field_types(cls)
    ]
    if chosen is None or not owners:
        return f"`{key}` is not a key of this configuration."
    return f"`{key}` is not a key of {group}={chosen}; it belongs to {' and '.join(owners)}."


def _wrong_type(key: str, schema: Schema, overrides: Sequence[str]) -> str:
    """The value and what it should have been; `key` may be an ancestor of what was written."""
    written = [o for o in overrides if re.match(rf"\+*{re.escape(key)}[=.]", o)]
    shown = written[-1].lstrip("+") if written else key
    hint = schema.find(key)
    return f"{shown} does not fit: {key} must be {kind(hint)}."


def kind(hint: Any) -> str:
    """A type for people: `int | None` is 'a whole number or null'."""
    if hint in (NumberOrAuto, WholeOrAuto):
        return f"{kind(float if hint == NumberOrAuto else int)} or {AUTO}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(kind(part) for part in get_args(hint))
    nested = nested_spec(hint)
    if nested is not None:
        group = next((group for group, base in groups().items() if base is nested), None)
        if group is not None:
            return f"one of {', '.join(choices(group))}"
        return f"set by its keys ({', '.join(field_types(nested))})"
    if get_origin(hint) is list:
        return "a list such as [a,b]"
    if get_origin(hint) is dict:
        return "a dictionary such as {a: 1}"
    return _KINDS.get(hint, "a plain value")


def optional_parents(key: str, schema: Schema) -> list[str]:
    """The nodes above a dotted key that may be null, such as callbacks.plateau."""
    parts = key.split(".")
    parents = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return [
        parent
        for parent in parents
        if nested_spec(hint := schema.find(parent)) is not None and type(None) in get_args(hint)
    ]


def switched_off(key: str, parent: str, schema: Schema) -> str:
    """What to say about a key inside `parent`, which is null in this configuration."""
    if parent in schema.groups:
        out = ", or leave it out: an adapter knows its base" if parent == "model" else ""
        return f"`{key}`: choose {parent}={'|'.join(schema.groups[parent])} first{out}."
    group, _, name = parent.rpartition(".")
    option = name.replace("_", "-")
    options = schema.groups.get(group, [])
    how = ""
    if option in options:
        value = f"[default,{option}]" if "default" in options else option
        how = f" Turn it on with {group}={value}."
    return f"`{key}`: {parent} is off in this configuration.{how}"


def _in_file(error: Exception) -> str:
    """'In conf/experiment/ficino.yaml: ' when a file, not the command line, is at fault."""
    match = re.match(r"In '([^']+)'", str(error))
    return f"In {match[1]}.yaml: " if match else ""


def _without_advice(text: str, cause: str) -> str:
    """Hydra's own words without search paths, links and the advice to add a +."""
    keep = []
    for line in [*text.splitlines(), *cause.splitlines()]:
        if line.startswith(("Config search path", "\tprovider=", "See http", "To append to")):
            continue
        if not line.strip() or re.match(r"\s+(full_key|object_type|reference_type)", line):
            continue
        keep.append(line.strip())
    return "\n".join(keep)
