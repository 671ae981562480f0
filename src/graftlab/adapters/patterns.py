"""What `lora` says of single modules and tokens, checked against the model's names and tokenizer.

rank_pattern        {q_proj: 8}     matched as PEFT does: `(.*\\.)?(KEY)$` on the module's name
alpha_pattern       {v_proj: 32}    likewise; the first key that matches counts
trainable_tokens    [<|tool|>]      rows of the embedding, by the tokenizer in the folder
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from graftlab.errors import ConfigError, did_you_mean, listed
from graftlab.files.reading import read_json

if TYPE_CHECKING:
    from graftlab.adapters.lora import Lora

Value = TypeVar("Value")


def value_for(pattern: Mapping[str, Value], name: str, otherwise: Value) -> Value:
    """What `pattern` says of the module called `name`."""
    for key, value in pattern.items():
        if _matches(key, name):
            return value
    return otherwise


def check_patterns(lora: Lora, adapted: Collection[str]) -> None:
    """Raise ConfigError naming every key of a pattern that no adapted module matches."""
    problems = []
    for field, pattern in (
        ("rank_pattern", lora.rank_pattern),
        ("alpha_pattern", lora.alpha_pattern),
    ):
        for key in pattern:
            try:
                found = any(_matches(key, name) for name in adapted)
            except re.error as error:
                problems.append(f"lora.{field}: {key} is no regular expression: {error}")
                continue
            if not found:
                leaves = sorted({name.rpartition(".")[2] for name in adapted})
                problems.append(
                    f"lora.{field}: {key} matches no adapted module."
                    f"{did_you_mean(key, leaves)} There are: {', '.join(leaves)}."
                )
    if problems:
        raise ConfigError(listed(problems, 5, "\n"))


def token_ids(folder: Path, tokens: Sequence[str]) -> list[int]:
    """Ids of `lora.trainable_tokens` by the tokenizer in `folder`, sorted.

    Raises ConfigError naming those that are no single token there.
    """
    if not tokens:
        return []
    known = _vocabulary(folder)
    unknown = [token for token in tokens if token not in known]
    if unknown:
        raise ConfigError(
            f"lora.trainable_tokens: {', '.join(unknown)} {_is(unknown)} of this model's "
            f"tokenizer.{did_you_mean(unknown[0], known)} Rows for new tokens are made with "
            "resize_token_embeddings in transformers, and saved with the tokenizer."
        )
    return sorted({known[token] for token in tokens})


def _is(unknown: Sequence[str]) -> str:
    return "is no single token" if len(unknown) == 1 else "are no single tokens"


def _vocabulary(folder: Path) -> dict[str, int]:
    """Token -> id, as tokenizer.json has them. Raises ConfigError where there is none."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(
            f"lora.trainable_tokens: {folder} has no tokenizer.json, which names the tokens."
        )
    content = read_json(file)
    found = content["model"].get("vocab") or {}
    pairs = found.items() if isinstance(found, dict) else ((t, i) for i, (t, _) in enumerate(found))
    added = {token["content"]: int(token["id"]) for token in content.get("added_tokens") or ()}
    return {**dict(pairs), **added}


def _matches(key: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({key})$", name) is not None
