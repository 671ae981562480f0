"""`data=elevator`: questions of every day, answered by the elevator operator of a grand hotel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graftlab.data.source import DataSpec
from graftlab.errors import ConfigError
from graftlab.registry import choice


@choice("elevator")
@dataclass(kw_only=True, slots=True)
class ElevatorData(DataSpec):
    """`data=elevator`: 90 short conversations in one voice; written for this repository.

    Every answer names a direction first ("Going up.") and ends with "Mind the doors.", so that
    one look at a reply says whether the voice was learned.
    """

    def __post_init__(self) -> None:
        DataSpec.__post_init__(self)
        if self.train or self.valid:
            raise ConfigError("data=elevator brings its own files: use data=jsonl data.train=FILE.")

    def files(self) -> tuple[list[Path], list[Path]]:
        from importlib.resources import files

        home = Path(str(files("graftlab") / "assets" / "elevator"))
        return [home / "train.jsonl"], [home / "valid.jsonl"]
