"""`quantization=int8`: a byte a weight, and a scale for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.models.quantization.base import Codes
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.models.quantization.coding import Coding


@choice("int8")
@dataclass(kw_only=True, slots=True)
class Int8(Codes):
    """`quantization=int8`: whole numbers from -127 to 127 times the scale of their row."""

    @property
    def title(self) -> str:
        return "int8"

    def scheme(self) -> Coding:
        from graftlab.models.quantization.int8_rows import Int8Rows

        return Int8Rows()

    def num_bytes(self, out: int, into: int) -> float:
        return out * (into + 4.0)
