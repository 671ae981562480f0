"""The base as mlx-lm loads it: a Hugging Face folder with what mlx reads.

transformers 5 writes `rope_theta` inside `rope_parameters` alone, where mlx-lm does not look: the
model then turns its positions by another angle and answers nonsense without an error.
"""

from __future__ import annotations

import filecmp
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import singledispatch
from pathlib import Path
from typing import Any

from graftlab.errors import ModelError
from graftlab.exports.mlx_quantized import compare_quantized, write_quantized
from graftlab.exports.source import Trained
from graftlab.exports.target import write_config
from graftlab.models.quantization.packed import comes_as
from graftlab.models.weights import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TEXT = ("*.jinja", "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt")
"""Files of a tokenizer, for which those of training may stand."""


@dataclass(frozen=True, slots=True)
class MLXBase(ABC):
    """The base in `folder`, to be written for mlx-lm."""

    folder: Path

    @abstractmethod
    def check(self, bits: int | None) -> None:
        """Raise ModelError unless the base can be written in so many bits; null: as it is."""

    def notes(self) -> list[str]:
        """What has to be done to the base's own folder before mlx-lm reads it right."""
        return []

    @abstractmethod
    def write(self, folder: Path, bits: int | None) -> None:
        """Write the base into `folder`, which is made."""

    @abstractmethod
    def verify(self, folder: Path) -> list[str]:
        """Read back what was written and compare. Raises ModelError."""


@singledispatch
def base_in_mlx(adapter: Trained) -> MLXBase | None:
    """The base of an adapter; None where it is not known. By the class of the adapter."""
    return HFFolder(adapter.base) if adapter.base else None


class HFFolder(MLXBase):
    """A folder of transformers, copied but for its config."""

    def check(self, bits: int | None) -> None:
        if (own := comes_as(read_json(self.folder / CONFIG))) is not None:
            raise ModelError(
                f"{self.folder} is stored in {own.title} by bitsandbytes, which mlx-lm does not "
                "read: leave target.with_base out, and take the full-precision folder there."
            )

    def notes(self) -> list[str]:
        if not (self.folder / CONFIG).is_file():
            return []
        config = read_json(self.folder / CONFIG)
        if _mended(config) == config:
            return []
        return [
            f"mlx-lm reads rope_theta only at the top level of {self.folder / CONFIG}, where it is "
            "not: target.with_base=true writes a base that has it there"
        ]

    def write(self, folder: Path, bits: int | None) -> None:
        config = _mended(read_json(self.folder / CONFIG))
        if bits is not None:
            write_quantized(self.folder, config, folder, bits)
            return
        folder.mkdir()
        for file in self.folder.iterdir():
            if file.is_file() and file.name != CONFIG:
                shutil.copyfile(file, folder / file.name)
        write_config(folder / CONFIG, config)

    def verify(self, folder: Path) -> list[str]:
        if "quantization" in read_json(folder / CONFIG):
            return [compare_quantized(self.folder, folder)]
        others = [f.name for f in self.folder.iterdir() if f.is_file() and f.name != CONFIG]
        names = [name for name in others if not any(fnmatch(name, form) for form in TEXT)]
        _, different, absent = filecmp.cmpfiles(self.folder, folder, names, shallow=False)
        if different or absent:
            raise ModelError(f"{folder} is no true copy of the base: {[*different, *absent][:3]}.")
        return [f"{len(names)} files of the base read back equal"]


def _mended(config: dict[str, Any]) -> dict[str, Any]:
    parameters = config.get("rope_parameters")
    theta = parameters.get("rope_theta") if isinstance(parameters, dict) else None
    return config if theta is None or "rope_theta" in config else {**config, "rope_theta": theta}
