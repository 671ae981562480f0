"""The one table of export formats, and a target made from the keys of a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from graftlab.errors import ConfigError
from graftlab.exports.mlx import MLX
from graftlab.exports.peft import Peft
from graftlab.exports.target import Target
from graftlab.registry import load_rooms

_TARGETS: dict[str, type[Target]] = {"mlx": MLX, "peft": Peft}


def register_target(name: str, cls: type[Target]) -> None:
    """Let `target=name` be `cls`, whose fields are the keys it takes."""
    _TARGETS[name] = cls


def targets() -> dict[str, type[Target]]:
    """`target=NAME` -> its class."""
    load_rooms()
    return dict(sorted(_TARGETS.items()))


def make_target(name: str, keys: Mapping[str, Any]) -> Target:
    """The target with the keys that were given (None is not given).

    Raises ConfigError for a key that another target takes, and for one that this needs.
    """
    cls = targets()[name]
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given = {key: value for key, value in keys.items() if value is not None}
    strangers = []
    for key in given.keys() - fields:
        takers = [other for other, has in targets().items() if key in _keys(has)]
        strangers.append(f"{key} belongs to target={' and target='.join(takers)}")
    if strangers:
        raise ConfigError(f"target={name}: {'; '.join(sorted(strangers))}.")
    if cls.needs_name and "name" not in given:
        raise ConfigError(f"target={name} needs a name: name=ficino_music, say.")
    return cls(**given)


def _keys(cls: type[Target]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
