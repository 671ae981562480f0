"""The verb `inspect`: the tokens as the model will see them, the packing, the token budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from graftlab.data.source import DataSpec
from graftlab.errors import require_range
from graftlab.models.base import ModelSpec
from graftlab.packing.plan import Packing


@dataclass(kw_only=True, slots=True)
class InspectSpec:
    """`graftlab inspect model=hf model.path=DIR data=jsonl data.train=FILE`."""

    model: ModelSpec
    data: DataSpec
    packing: Packing = field(default_factory=Packing)
    batch_size: int = 1
    """Packed rows per micro-batch."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    rows: int = 2
    """Conversations shown token by token."""

    def __post_init__(self) -> None:
        require_range("batch_size", self.batch_size, least=1)
        require_range("accumulate", self.accumulate, least=1)
        require_range("rows", self.rows, least=0)
