"""Types of a spec's fields: which hold specs of their own, and whether a value fits one."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin


def nested_spec(hint: Any) -> type | None:
    """The spec class in a field's type (`Lora`, `EarlyStopping | None`), or None."""
    if get_origin(hint) in (dict, list):
        return None
    for candidate in (hint, *get_args(hint)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


def named_specs(hint: Any) -> type | None:
    """The spec class of a dictionary of specs (`dict[str, SourceSpec]`), or None."""
    return nested_spec(get_args(hint)[1]) if get_origin(hint) is dict else None


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON or YAML is of a field's type; an int is a float, too."""
    if hint is Any:
        return True
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is list:
        return isinstance(value, list) and all(fits(one, parts[0]) for one in value)
    if kind is dict:
        return isinstance(value, Mapping) and all(
            fits(name, parts[0]) and fits(one, parts[1]) for name, one in value.items()
        )
    if isinstance(value, bool) and hint in (int, float):
        return False
    if hint is float:
        return isinstance(value, (int, float))
    return not isinstance(hint, type) or isinstance(value, hint)
