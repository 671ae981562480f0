"""`NAME.fmadapter`: an adapter as Apple's Foundation Models framework of OS 26 loads it.

    NAME.fmadapter/
      metadata.json          which base, which rank; keys sorted
      adapter_weights.bin    blob storage: tensors without names, in the order of `Layout.slots`
      draft.mil, draft_weights.bin    both or neither: a draft model for speculative decoding

What the runtime is told nowhere, it takes for granted, so that is put into the numbers: the scale
alpha / rank = 0.5 (any other is folded into B), and rotary embeddings over split halves where tamm
rotates neighbours (the rows of B of q and k are permuted).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.apple.exports import blob
from graftlab.apple.exports.layout import Layout, Slot
from graftlab.apple.targets import PROVEN_RANK
from graftlab.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SUFFIX = ".fmadapter"
METADATA, WEIGHTS = "metadata.json", "adapter_weights.bin"
DRAFT, DRAFT_WEIGHTS = "draft.mil", "draft_weights.bin"

SIGNATURE_26_0 = "9799725ff8e851184037110b422d891ad3b92ec1"
"""The base model of OS 26.0; each release that brings another base wants adapters of its own."""
SCALE = 0.5
"""alpha / rank that the runtime applies, whatever the adapter was trained with."""
DRAFT_TOKENS = 5
NAME = re.compile(r"\w+", re.ASCII)
SIGNATURE = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What `metadata.json` says. Raises ConfigError for a name or signature that cannot load."""

    name: str
    rank: int = PROVEN_RANK
    signature: str = SIGNATURE_26_0
    author: str = "3P developer"
    description: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            better = re.sub(r"[^0-9A-Za-z_]+", "_", self.name).strip("_") or "my_adapter"
            raise ConfigError(
                f"name={self.name} cannot be loaded (invalidAdapterName): letters, digits and "
                f"underscores only, such as name={better}."
            )
        if not SIGNATURE.fullmatch(self.signature):
            raise ConfigError(
                f"target.signature={self.signature} is not 40 lowercase hexadecimal digits, as "
                f"that of a base model is; OS 26.0 has {SIGNATURE_26_0}."
            )

    @property
    def identifier(self) -> str:
        return identifier(self.name, self.signature)

    def content(self) -> dict[str, Any]:
        """The keys of the file, in its order."""
        return {
            "adapterIdentifier": self.identifier,
            "author": self.author,
            "baseModelSignature": self.signature,
            "creatorDefined": {},
            "description": self.description,
            "license": "",
            "loraRank": self.rank,
            "speculativeDecodingDraftTokenCount": DRAFT_TOKENS,
        }


def identifier(name: str, signature: str) -> str:
    """What the framework looks an adapter up by."""
    return f"fmadapter-{name}-{signature[:7]}"


def write(
    folder: Path, state: Mapping[str, Tensor], *, layout: Layout, metadata: Metadata, alpha: float
) -> None:
    """Write metadata and weights into `folder`, which is there and empty.

    `state` has tamm's names. Raises ModelError for an adapter of another layout, or for a value
    that half precision cannot hold, naming the tensor.
    """
    layout.check(state)
    text = json.dumps(metadata.content(), indent=2, ensure_ascii=False)
    (folder / METADATA).write_text(text + "\n", encoding="utf-8")
    with (folder / WEIGHTS).open("wb") as file:
        blob.write(file, runtime_tensors(state, layout, alpha=alpha))


def runtime_tensors(
    state: Mapping[str, Tensor], layout: Layout, *, alpha: float
) -> Iterator[np.ndarray]:
    """Every tensor as the runtime wants it, in its order: (rank, in) or (out, rank), fp16."""
    factor = alpha / layout.rank / SCALE
    for slot in layout.slots():
        yield _runtime(state[slot.name], slot, factor).numpy()


def expected(state: Mapping[str, Tensor], layout: Layout, *, alpha: float) -> Iterator[Tensor]:
    """What `read_weights` must give back for `state`: scaled and rounded, otherwise unchanged."""
    factor = alpha / layout.rank / SCALE
    for slot in layout.slots():
        tensor = state[slot.name].float()
        yield (tensor * factor if slot.is_b else tensor).half()


def read_weights(path: Path, layout: Layout) -> Iterator[tuple[Slot, Tensor]]:
    """The tensors of `adapter_weights.bin` in tamm's shapes and row order, fp16.

    Raises ModelError unless the file has this layout.
    """
    import torch

    records, slots = blob.read(path), list(layout.slots())
    if len(records) != len(slots):
        raise ModelError(f"{path.name} has {len(records)} records, not {len(slots)}.")
    for record, slot in zip(records, slots, strict=True):
        if record.dtype != blob.FP16 or record.elements != slot.shape[0] * slot.shape[1]:
            raise ModelError(f"{path.name}: {slot.name} is not fp16 of shape {slot.shape}.")
        tensor = torch.from_numpy(blob.load(path, record).copy()).view(slot.shape[::-1])
        yield slot, (join_halves(tensor, slot.heads) if slot.heads else tensor).T


def split_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows (heads * d, ...) for neighbours (0, 1), (2, 3) ... -> for halves (0, d/2), (1, ...).

    Rotary embeddings turn pairs of a head's dimensions; which two make a pair is a matter of
    order alone, and scores do not change when q and k are both permuted (arXiv 2104.09864).
    """
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def join_halves(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `split_halves`."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def _runtime(tensor: Tensor, slot: Slot, factor: float) -> Tensor:
    import torch

    values = tensor.detach().float()
    rows = (values * factor if slot.is_b else values).T
    rows = (split_halves(rows, slot.heads) if slot.heads else rows).contiguous()
    half = rows.half()
    if not torch.isfinite(half).all():
        if torch.isfinite(values).all():
            largest = rows.abs().max().item()
            raise ModelError(
                f"{slot.name} has values up to {largest:.3g}, and half precision ends at 65504: "
                "nothing was written. Such weights come of a run that diverged: lower lr."
            )
        raise ModelError(f"{slot.name} has values that are no numbers: nothing was written.")
    return half
