"""`data=jsonl`: conversations in files of the user's own, JSONL or a JSON array."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graftlab.data.source import DataSpec
from graftlab.errors import ConfigError
from graftlab.registry import choice

NO_FILE = "data.train is not set: data=jsonl needs data.train=FILE (JSONL or a JSON array)."


@choice("jsonl")
@dataclass(kw_only=True, slots=True)
class JsonlData(DataSpec):
    """`data=jsonl data.train=FILE`."""

    def __post_init__(self) -> None:
        DataSpec.__post_init__(self)
        if not self.train and not self.profile.known:
            raise ConfigError(NO_FILE)

    @property
    def has_files(self) -> bool:
        return bool(self.train)

    def files(self) -> tuple[list[Path], list[Path]]:
        if not self.train:
            raise ConfigError(NO_FILE)
        return DataSpec.files(self)
