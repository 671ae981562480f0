"""Where conversations come from: what every data choice shares, and the choices themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graftlab.errors import ConfigError, require_choice, require_range


@dataclass(kw_only=True, slots=True)
class DataSpec:
    """Conversation data; `train` and `valid` take a file, a list of files or a glob."""

    train: Any = None
    """JSONL or JSON-array files with the training conversations."""
    valid: Any = None
    """Files with validation conversations; null splits them off `train` by `valid_fraction`."""
    valid_fraction: float = 0.1
    """Share of `train` kept for validation when `valid` is null; by content hash, stable when rows are added."""
    system_prompt: str | None = None
    """System turn for rows that have none (Alpaca triples, for instance)."""
    default_instruction: str | None = None
    """Put in front of every system prompt, for models that were tuned with such a line."""
    on_invalid: str = "error"
    """error: refuse the data set, listing every bad row; skip: go on, and keep them in rejects.jsonl."""
    over_limit: str = "drop"
    """A conversation longer than packing.max_length: drop (counted) or error. Never cut silently."""
    train_turns: str = "all"
    """Train all assistant turns of a conversation, or only the last."""
    limit: int | None = None
    """Use only the first N conversations of each file set: for quick probes."""

    def __post_init__(self) -> None:
        require_choice("data.on_invalid", self.on_invalid, ("error", "skip"))
        require_choice("data.over_limit", self.over_limit, ("drop", "error"))
        require_choice("data.train_turns", self.train_turns, ("all", "last"))
        require_range("data.valid_fraction", self.valid_fraction, least=0, most=0.9)
        require_range("data.limit", self.limit, least=1)


@dataclass(kw_only=True, slots=True)
class JsonlData(DataSpec):
    """`data=jsonl data.train=FILE`."""

    def __post_init__(self) -> None:
        DataSpec.__post_init__(self)
        if not self.train:
            raise ConfigError("data.train is not set: data=jsonl needs data.train=FILE (JSONL or a JSON array).")


@dataclass(kw_only=True, slots=True)
class DemoData(DataSpec):
    """`data=demo`: music-track metadata in, short commentary out; made by this repository."""
