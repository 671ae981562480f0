"""What a Hugging Face model has read: its `DynamicCache`, in stock attention while it is open.

Layers that carry state keep it in that cache too, with two cares: not all take several tokens onto
a state, so what follows the prompt is read one by one; and a few models keep the state elsewhere,
in caches of their own or in the modules. Those read every row from its beginning again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from graftlab.errors import ModelError
from graftlab.models.context import Context
from graftlab.models.dora import dora_norms_kept

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
        self._stateful = bool(base.stateful_layers)
        self._read: Tensor | None = None  # (B, length) where all is read again
        self._rereads = not _takes_cache(model)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._stock())
        self._open.enter_context(dora_norms_kept(self._model))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @torch.no_grad()
    def feed(self, ids: Tensor, *, last: int | None = None) -> Tensor:
        last = ids.shape[1] if last is None else last
        if self._rereads:
            return self._reread(ids, last)
        if self._stateful and self.length and ids.shape[1] > 1:
            fed = [self._feed(ids[:, at : at + 1], 1) for at in range(ids.shape[1])]
            return torch.cat(fed[-last:], dim=1)
        return self._feed(ids, last)

    def _reread(self, ids: Tensor, last: int) -> Tensor:
        """Every row from its own beginning, alone."""
        self._read = ids if self._read is None else torch.cat([self._read, ids], dim=1)
        self.length += ids.shape[1]
        starts = [0] * len(ids) if self._start is None else self._start.tolist()
        keep = {"logits_to_keep": last} if self._keeps else {}
        rows = [
            self._model(input_ids=row[None, start:], use_cache=False, **keep).logits[0, -last:]
            for row, start in zip(self._read, starts, strict=True)
        ]
        # Zeros for what was asked of the padding, as anything will do.
        padded = [functional.pad(row, (0, 0, last - len(row), 0)) for row in rows]
        return torch.stack(padded).float()

    def _feed(self, ids: Tensor, last: int) -> Tensor:
        outputs = self._model(
            input_ids=ids,
            past_key_values=self._cache,
            use_cache=True,
            **self._places(ids),
            **({"logits_to_keep": last} if self._keeps else {}),
        )
        if getattr(outputs, "past_key_values", None) is not self._cache:
            self._rereads = True  # found at the first feed, when nothing is read yet
            return self._reread(ids, last)
        self.length += ids.shape[1]
        logits: Tensor = outputs.logits[:, -last:]
        return logits.float()

    def crop(self, length: int) -> None:
        assert 0 <= length <= self.length, f"cannot crop {self.length} tokens to {length}"
        if length < self.length:
            self._cache.crop(length - self.length)
            self.length = length

    def select(self, rows: Tensor) -> None:
        if self._read is not None:
            self._read = self._read[rows]
        else:
            self._cache.reorder_cache(rows)
        if self._start is not None:
            self._start = self._start[rows]

    def _places(self, ids: Tensor) -> dict[str, Any]:
        """Mask and positions where rows are padded; else the model's own defaults are right, but
        of layers with state, whose cache may not know its length.
        """
        if self._start is None and not self._stateful:
            return {}
        fed = ids.shape[1]
        if self._start is None:
            places = torch.arange(self.length, self.length + fed, device=self._model.device)
            return {"position_ids": places.expand_as(ids)}
        places = torch.arange(self.length + fed, device=self._start.device)
        offsets = places[None] - self._start[:, None]  # (B, length + T), negative in the padding
        found = {"attention_mask": (offsets >= 0).long()}
        if "position_ids" in inspect.signature(self._model.forward).parameters:
            found["position_ids"] = offsets[:, self.length :].clamp(min=0)
        return found  # else the mask tells the distances (ALiBi)


def _takes_cache(model: Any) -> bool:
    """Whether the model can be given a `DynamicCache`."""
    named = "past_key_values" in inspect.signature(model.forward).parameters
    return named and bool(model._supports_default_dynamic_cache())


def _require_croppable(name: str, config: Any) -> None:
    """Raise ModelError for a model with layers that cannot forget single tokens."""
    kinds = set(getattr(config, "layer_types", None) or ()) - CROPPABLE
    if kinds:
        raise ModelError(
            f"{name} has layers of kind {', '.join(sorted(kinds))}, which cannot take back a "
            "token once it is read, as speculative decoding must. Leave draft= out: plain decoding "
            "works."
        )
