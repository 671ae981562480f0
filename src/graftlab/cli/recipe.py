"""`data.recipe`: the words of `graftlab prepare` that the data section of a run stands for.

data.recipe=airoad-mix data.corpus=F data.prepare.split.test=0.1
    ->  recipe=airoad-mix corpus=F seed=0 split.test=0.1
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from graftlab.cli.overrides import Argument, quote
from graftlab.cli.schema import Schema
from graftlab.cli.validate import check_arguments
from graftlab.data.prepared import PreparedData
from graftlab.registry import MARK


def recipe_arguments(data: PreparedData, schema: Schema) -> list[Argument]:
    """The words for `prepare`, checked. Raises ConfigError naming every one that cannot be."""
    given = {"recipe": data.recipe, "corpus": data.corpus, "seed": data.seed}
    words = [_word(f"data.{key}", key, value) for key, value in given.items()]
    words += [_word(f"data.prepare.{key}", key, value) for key, value in _leaves(data.prepare)]
    return check_arguments(words, schema, multirun=False)


def _leaves(node: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a tree of keys, options of groups first."""
    for name, value in sorted(node.items(), key=lambda item: isinstance(item[1], Mapping)):
        if isinstance(value, Mapping) and value:
            if MARK in value:
                yield f"{start}{name}", value[MARK]
                value = {key: below for key, below in value.items() if key != MARK}
            yield from _leaves(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value


def _word(typed: str, key: str, value: Any) -> Argument:
    return Argument(f"{typed}={value}", key, f"{key}={_written(value)}")


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {_written(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
