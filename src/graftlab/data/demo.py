"""`data=demo`: the conversations that come with graftlab."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graftlab.data.source import DataSpec
from graftlab.errors import ConfigError
from graftlab.registry import choice


@choice("demo")
@dataclass(kw_only=True, slots=True)
class DemoData(DataSpec):
    """`data=demo`: music-track metadata in, short commentary out; made by this repository."""

    def __post_init__(self) -> None:
        DataSpec.__post_init__(self)
        if self.train or self.valid:
            raise ConfigError("data=demo brings its own files: use data=jsonl data.train=FILE.")

    def files(self) -> tuple[list[Path], list[Path]]:
        from importlib.resources import files

        demo = Path(str(files("graftlab") / "assets" / "demo"))
        return [demo / "train.jsonl"], [demo / "valid.jsonl"]
