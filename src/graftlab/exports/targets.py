"""The one table of export formats, and a target made from the keys of a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from graftlab.errors import ConfigError
from graftlab.exports.fmadapter import FMAdapter
from graftlab.exports.mlpackage import MLPackage
from graftlab.exports.mlx import MLX
from graftlab.exports.peft import Peft
from graftlab.exports.target import Target

TARGETS: dict[str, type[Target]] = {
    "fmadapter": FMAdapter,
    "mlpackage": MLPackage,
    "mlx": MLX,
    "peft": Peft,
}
"""`target=NAME` -> its class, whose fields are the keys it takes."""


def make_target(name: str, keys: Mapping[str, Any]) -> Target:
    """The target with the keys that were given (None is not given).

    Raises ConfigError for a key that another target takes, and for one that this needs.
    """
    cls = TARGETS[name]
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given = {key: value for key, value in keys.items() if value is not None}
    strangers = []
    for key in given.keys() - fields:
        takers = [other for other, has in TARGETS.items() if key in _keys(has)]
        strangers.append(f"{key} belongs to target={' and target='.join(takers)}")
    if strangers:
        raise ConfigError(f"target={name}: {'; '.join(sorted(strangers))}.")
    if cls.needs_name and "name" not in given:
        raise ConfigError(f"target={name} needs a name: name=ficino_music, say.")
    return cls(**given)


def _keys(cls: type[Target]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
