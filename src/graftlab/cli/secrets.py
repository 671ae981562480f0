"""Secrets of the environment, which no configuration may hold: it is written in many places.

run.yaml, checkpoints, the card, `.hydra/`, a sweep's ledger and W&B all keep the configuration, so
it is refused once, where it is built, instead of being cleaned at every place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from graftlab.errors import ConfigError

SHORTEST = 12
"""Letters of a secret; what is shorter may stand in any text by chance."""
_NAME = re.compile(r"(?:^|_)(?:\w*KEY|\w*TOKEN|SECRET|PASS|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)")


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret, by the name alone."""
    return _NAME.search(name.upper()) is not None


def known() -> dict[str, str]:
    """Name -> value of the secrets in the environment; paths, which others call so, are none."""
    return {
        name: value
        for name, value in os.environ.items()
        if is_secret(name) and len(value) >= SHORTEST and not value.startswith(("/", "~", "."))
    }


def refuse_secrets(config: Any) -> None:
    """Raise ConfigError naming every key of a dumped spec that holds a known secret."""
    secrets = known()
    found = [
        f"`{key}` holds the value of ${name}"
        for key, text in _texts(config, "")
        for name, value in secrets.items()
        if value in text
    ]
    if found:
        raise ConfigError(
            f"{'; '.join(dict.fromkeys(found))}. A configuration is written into run.yaml, "
            "checkpoints and logs, and so must hold no secret: leave it out. Keys are read from "
            "the environment where they are needed."
        )


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text, keys of free dictionaries included."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            below = f"{place}.{key}" if place else str(key)
            yield place, str(key)
            yield from _texts(inner, below)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{number}]")
    elif isinstance(value, str):
        yield place, value
