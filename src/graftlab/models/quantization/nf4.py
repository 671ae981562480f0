"""`quantization=nf4`: four bits a weight, in sixteen unevenly spaced values (arXiv 2305.14314)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftlab.models.quantization.base import Codes
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.models.quantization.coding import Coding


@choice("nf4")
@dataclass(kw_only=True, slots=True)
class NF4(Codes):
    """`quantization=nf4`: the codes of bitsandbytes, in blocks of 64 weights."""

    double: bool = False
    """Store the scales of the blocks in 8 bits: 0.52 bytes a weight instead of 0.56."""

    # QLoRA's experiments begin at 7 billion parameters; ours, on 0.1 billion, speak against it.
    least_parameters: ClassVar[int] = 1_000_000_000
    caution: ClassVar[str] = (
        "nf4 moved one of 135M by half a nat (KL), more than training did, and the adapter fits "
        "what is left of it; quantization=int8 moved it by 0.0035"
    )

    @property
    def title(self) -> str:
        return "nf4, double" if self.double else "nf4"

    def scheme(self) -> Coding:
        from graftlab.models.quantization.nf4_blocks import NF4Blocks

        return NF4Blocks(double=self.double)

    def num_bytes(self, out: int, into: int) -> float:
        blocks = out * into / 64
        return out * into / 2 + blocks * (1 + 4 / 256 if self.double else 4)
