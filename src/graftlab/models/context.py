"""What a model has read: a KV cache that grows by feeding, behind one small protocol.

    row 0     . . p p p p a b c      "." is left padding: start[0] = 2
    row 1     p p p p p p a b c      start[1] = 0
    length    ---------------->      padding included, so the same for every row

The decode loop, speculative decoding and guided generation know a model by this alone.

Legend: B rows, T tokens fed, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from graftlab.errors import ModelError

if TYPE_CHECKING:
    from graftlab.models.hf_base import HFBase

CROPPABLE = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers that remember tokens one by one; all others fold them into one state."""


class Context(ABC):
    """Rows that one model reads in step; made by `Base.context` and used inside a `with` block.

    Nothing records gradients. Whatever adapter is on, at whatever strength, reads along, so it must
    stay as it is for the life of the context.
    """

    length: int
    """Tokens read by each row, left padding included."""
    limit: int | None
    """Most tokens, padding not counted, that a row may hold; None when the model knows no end."""

    @abstractmethod
    def feed(self, ids: Tensor, *, last: int | None = None) -> Tensor:
        """Read `ids` (B, T) behind what was read: next-token logits (B, T, V) in fp32.

        With `last`, logits of the last so many positions alone are computed, (B, last, V): a long
        prompt with a large vocabulary would fill the memory.
        """

    @abstractmethod
    def crop(self, length: int) -> None:
        """Forget all that was read behind the first `length` tokens of every row.

        Only in a context that was opened with `rewind`.
        """

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Keep only these `rows` (n,), in this order: the others have ended."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Set the model up for reading: no dropout, no recomputation, attention with a cache."""

    @abstractmethod
    def __exit__(self, *error: object) -> None:
        """Put the model back as it was."""


class HFContext(Context):
    """A Hugging Face model with its `DynamicCache`, in stock attention while it is open."""

    def __init__(
        self, base: HFBase, *, padding: Tensor | None = None, rewind: bool = False
    ) -> None:
        """`padding` (B,) counts the left padding of each row; see `Base.context`."""
        from transformers import DynamicCache

        config = base.config
        if rewind:
            _require_croppable(base)
        self.length = 0
        self.limit = getattr(config, "max_position_embeddings", None)
        self._base = base
        # Without a config every layer keeps all it has read, a sliding window too: what fell out of
        # the window is needed again after `crop`. The mask hides it meanwhile.
        self._cache = DynamicCache() if rewind else DynamicCache(config=config)
        padded = padding is not None and bool(padding.any())
        self._start = padding.to(base.device) if padding is not None and padded else None
        self._keeps = base.model._supports_logits_to_keep()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._base.plain())
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @torch.no_grad()
    def feed(self, ids: Tensor, *, last: int | None = None) -> Tensor:
        last = ids.shape[1] if last is None else last
        outputs = self._base.model(
            input_ids=ids,
            past_key_values=self._cache,
            use_cache=True,
            **self._places(ids.shape[1]),
            **({"logits_to_keep": last} if self._keeps else {}),
        )
        self.length += ids.shape[1]
        logits: Tensor = outputs.logits[:, -last:]
        return logits.float()

    def crop(self, length: int) -> None:
        assert 0 <= length <= self.length, f"cannot crop {self.length} tokens to {length}"
        if length < self.length:
            self._cache.crop(length - self.length)
            self.length = length

    def select(self, rows: Tensor) -> None:
        self._cache.reorder_cache(rows)
        if self._start is not None:
            self._start = self._start[rows]

    def _places(self, fed: int) -> dict[str, Any]:
        """Mask and positions where rows are padded; else the model's own defaults are right."""
        if self._start is None:
            return {}
        places = torch.arange(self.length + fed, device=self._start.device)
        offsets = places[None] - self._start[:, None]  # (B, length + T), negative in the padding
        return {
            "attention_mask": (offsets >= 0).long(),
            "position_ids": offsets[:, self.length :].clamp(min=0),
        }


def _require_croppable(base: HFBase) -> None:
    """Raise ModelError for a model with layers that cannot forget single tokens."""
    kinds = set(getattr(base.config, "layer_types", None) or ()) - CROPPABLE
    if kinds:
        raise ModelError(
            f"{base.name} has layers of kind {', '.join(sorted(kinds))}, which cannot take back a "
            "token once it is read, as speculative decoding must. Leave draft= out: plain decoding "
            "works."
        )
