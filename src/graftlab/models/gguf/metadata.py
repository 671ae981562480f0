"""Metadata of a GGUF file, asked by key, with messages that name file and key."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftlab.errors import ModelError
from graftlab.models.gguf.file import GGUFFile

LARGEST = 2**31 - 1
"""Of whole numbers: more of anything is damage."""
SMALLEST = 1e-30


@dataclass(frozen=True, slots=True)
class Metadata:
    """The keys under a file's own architecture, such as `llama.block_count`."""

    file: GGUFFile

    def has(self, key: str) -> bool:
        return f"{self.file.architecture}.{key}" in self.file.metadata

    def value(self, key: str) -> Any:
        """What stands under a key, one for all layers. Raises ModelError where it is missing."""
        full = f"{self.file.architecture}.{key}"
        if full not in self.file.metadata:
            raise ModelError(f"{self.file.path} does not say {full}, without which it is no model.")
        found = self.file.metadata[full]
        if isinstance(found, list):
            if len(set(found)) != 1:
                raise ModelError(
                    f"{self.file.path}: {full} differs from layer to layer, which no architecture "
                    "that can be trained here does."
                )
            return found[0]
        return found

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number of at least `least`, or the default, if there is one, where the file says
        nothing. Raises ModelError.
        """
        if default is not None and not self.has(key):
            return default
        found = self.value(key)
        whole = isinstance(found, int) and not isinstance(found, bool)
        if not whole or not least <= found <= LARGEST:
            raise self._odd(key, f"a whole number from {least} to {LARGEST:,}")
        return int(found)

    def number(self, key: str, default: float | None = None, *, least: float = SMALLEST) -> float:
        """A finite number above 0 or from `least`, or the default as in `integer`.

        Raises ModelError.
        """
        if default is not None and not self.has(key):
            return default
        found = self.value(key)
        number = isinstance(found, int | float) and not isinstance(found, bool)
        if not number or not math.isfinite(found) or found < least:
            raise self._odd(key, "a finite number above 0")
        return float(str(np.float32(found)))  # 1e-05, which in the file is 9.99999974e-06

    def _odd(self, key: str, wanted: str) -> ModelError:
        return ModelError(
            f"{self.file.path}: {self.file.architecture}.{key} is {self.value(key)!r}, not "
            f"{wanted}. Copy the file again, or take another one of the model."
        )
