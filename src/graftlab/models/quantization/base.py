"""How a frozen base is stored: `quantization=none|nf4|int8`, the keys under `model.quantization`.

    weight file  --quantise-->  codes and scales  --widen, in each product-->  values, then dropped

Every matrix of the decoder layers is stored as codes; embeddings, norms and biases stay as the
precision says, and so does the head unless `head` is given. What a product computes with are the
widened values, so they are the base that an adapter is trained on: another storage of the same
files is another base, with a fingerprint of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftlab.registry import choice, group

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from graftlab.models.quantization.coding import Coding
    from graftlab.models.quantization.weight import QuantizedWeight


@choice("none")
@group("quantization", place="model.quantization")
@dataclass(kw_only=True, slots=True)
class Quantization:
    """`quantization=none`: every weight in the dtype that the precision says. Base of the choices,
    as OmegaConf replaces a default by what inherits it alone.
    """

    least_parameters: ClassVar[int] = 0
    """How large a base had better be to be stored so."""
    caution: ClassVar[str] = ""
    """What becomes of a smaller one."""

    @property
    def title(self) -> str:
        """For people, such as `nf4, double`; '' where weights are stored as they are."""
        return ""


@dataclass(kw_only=True, slots=True)
class Codes(Quantization, ABC):
    """What choices share that store codes."""

    head: bool = False
    """Store the output head as codes too, where it is not the embedding itself."""
    cache: bool = False
    """Keep the codes on disk, so that later loads read them and not the wide weights."""

    @abstractmethod
    def scheme(self) -> Coding:
        """What makes and reads the codes."""

    def quantise(self, weight: Tensor, dtype: torch.dtype) -> QuantizedWeight:
        """A weight (out, in), fp32, as codes that are widened to `dtype`."""
        return self.scheme().quantise(weight, dtype)

    @abstractmethod
    def num_bytes(self, out: int, into: int) -> float:
        """What a weight (out, in) takes, its scales included."""
