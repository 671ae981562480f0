"""What every export format is asked: does the adapter fit, write it, and is it what was written."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import ConfigError, ModelError
from graftlab.exports.parity.spec import Bounds
from graftlab.exports.runtimes.base import NotHere
from graftlab.registry import choice_of, group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from graftlab.exports.runtimes.base import Runtime
    from graftlab.exports.source import Trained


@group("target")
@dataclass(kw_only=True, slots=True)
class Target(ABC):
    """One format, one choice of `target`; its fields are the keys `target.KEY` that it takes."""

    suffix: ClassVar[str] = ""
    """What the folder's name ends in; what stands before it is the name of the export."""
    needs_name: ClassVar[bool] = False
    """Whether the export has a name of its own; else `out` is its folder."""
    inspects: ClassVar[bool] = False
    """Whether it can say of any export of its format whether the rules are kept."""
    closed: ClassVar[bool] = False
    """Whether no file may lie in the export that is not of its format."""
    shared: ClassVar[bool] = False
    """Whether the export goes to others, and names no place of this machine."""

    def check_name(self, name: str | None) -> None:
        """Raise ConfigError for a name that the format cannot have."""
        if self.needs_name and name is None:
            own = choice_of(type(self))
            raise ConfigError(f"target={own} needs a name: name=ficino_music, say.")

    def check_files(self) -> None:
        """Raise ConfigError for a file that a key names and that is not there."""
        return

    @abstractmethod
    def check(self, adapter: Trained) -> list[str]:
        """What is to be known before it is written. Raises ModelError when it does not fit."""

    @abstractmethod
    def write(self, adapter: Trained, folder: Path) -> None:
        """Fill `folder`, which is there, empty, and has the name of the export."""

    @abstractmethod
    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        """Read back what was written and compare; what was found equal. Raises ModelError."""

    @property
    def scale(self) -> float:
        """How much of the adapter the export is to have: 1 as trained."""
        return 1.0

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        """The program that answers with the export in `folder`, not yet started."""
        return NotHere(f"nothing here runs target={choice_of(type(self))}")

    def bounds(self, folder: Path) -> Bounds:
        """What the export may lose."""
        return Bounds()

    def diagnose(self, adapter: Trained, folder: Path) -> list[str]:
        """What its files tell of why the export answers otherwise; nothing where they do not."""
        return []

    def cure(self) -> str:
        """A sentence on what helps against a loss by rounding; '' where nothing is known."""
        return ""

    def tell(self, folder: Path, lines: list[str]) -> list[str]:
        """Put what was found into the export's own card; the names of the files that changed."""
        return []

    def publish(self, folder: Path) -> list[str]:
        """What is done with the export once it has its name, in lines. Raises ConfigError."""
        return []

    @classmethod
    def inspect(cls, path: Path) -> list[str]:
        """What an export that is there is, checked against the rules of its format, for people.

        For `graftlab export verify=PATH` with `suffix`. Raises ModelError naming every broken rule.
        """
        raise AssertionError("only where `inspects` says so")


def save_tensors(state: Mapping[str, Tensor], file: Path, *, library: str) -> None:
    """Write a safetensors file that says it is of `library` (pt or mlx). Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(state), file, metadata={"format": library})
    except SafetensorError as error:  # a full disk, in the library's own words
        raise OSError(str(error).rpartition("I/O error: ")[2]) from error


def write_config(file: Path, content: Mapping[str, Any]) -> None:
    """Write a small JSON file, keys sorted."""
    text = json.dumps(content, indent=2, sort_keys=True)
    file.write_text(text + "\n", encoding="utf-8")


def compare_file(file: Path, wanted: Mapping[str, Tensor]) -> int:
    """Raise ModelError unless a safetensors file holds `wanted`; how many tensors those are."""
    from safetensors.torch import load_file

    found = load_file(file)
    if found.keys() != wanted.keys():
        raise ModelError(f"{file.parent.name}/{file.name} holds other tensors than were written.")
    return compare(((name, found[name], tensor) for name, tensor in wanted.items()), file.parent)


def compare(pairs: Iterable[tuple[str, Tensor, Tensor]], folder: Path) -> int:
    """Raise ModelError unless each pair (name, read back, wanted) is equal; how many there were."""
    import torch

    count = 0
    for name, found, wanted in pairs:
        count += 1
        if found.shape != wanted.shape or not torch.equal(found, wanted):
            raise ModelError(
                f"{folder.name}: {name} was not read back as it was written. This is a mistake of "
                "graftlab or of the disk; nothing was kept."
            )
    if not count:
        raise ModelError(f"{folder.name}: no tensor was read back.")
    return count
