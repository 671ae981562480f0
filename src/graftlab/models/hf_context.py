"""What a Hugging Face model has read: its `DynamicCache`, in stock attention while it is open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from graftlab.errors import ModelError
from graftlab.models.context import Context

if TYPE_CHECKING:
    from graftlab.models.base import Base

CROPPABLE = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers that remember tokens one by one; all others fold them into one state."""


class HFContext(Context):
    """A Hugging Face model with its `DynamicCache`, in stock attention while it is open."""

    def __init__(
        self,
        base: Base,
        *,
        stock: Callable[[], AbstractContextManager[None]],
        padding: Tensor | None = None,
        rewind: bool = False,
    ) -> None:
        """`padding` (B,) counts the left padding of each row; see `Base.context`.

        `stock()` holds the model in stock attention, eager and in eval mode.
        """
        from transformers import DynamicCache

        model: Any = base.model
        config = model.config.get_text_config()
        if rewind:
            _require_croppable(base.name, config)
        self.length = 0
        self.limit = getattr(config, "max_position_embeddings", None)
        self._model, self._stock = model, stock
        # Without a config every layer keeps all it has read, a sliding window too: what fell out of
        # the window is needed again after `crop`. The mask hides it meanwhile.
        self._cache = DynamicCache() if rewind else DynamicCache(config=config)
        padded = padding is not None and bool(padding.any())
        self._start = padding.to(base.device) if padding is not None and padded else None
        self._keeps = model._supports_logits_to_keep()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._stock())
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @torch.no_grad()
    def feed(self, ids: Tensor, *, last: int | None = None) -> Tensor:
        last = ids.shape[1] if last is None else last
        outputs = self._model(
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


def _require_croppable(name: str, config: Any) -> None:
    """Raise ModelError for a model with layers that cannot forget single tokens."""
    kinds = set(getattr(config, "layer_types", None) or ()) - CROPPABLE
    if kinds:
        raise ModelError(
            f"{name} has layers of kind {', '.join(sorted(kinds))}, which cannot take back a "
            "token once it is read, as speculative decoding must. Leave draft= out: plain decoding "
            "works."
        )
