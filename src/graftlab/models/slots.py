"""Decoding of plain decoders on a processor: several sequences in slots, any tokens of each a pass.

    pass 1    slot 0: p p p p p   slot 1: p p p       prompts are read side by side, unpadded
    pass 2    slot 0: a           slot 1: b
    pass 3    slot 0: a           slot 2: p p p p     slot 1 has ended, and another prompt came

All tokens of a pass are rows of the same matrix products; attention looks at each slot by itself,
in keys and values that lie where they were written. No module of the model is called.

Legend: N tokens of a pass, n of one slot, H query heads, K key heads, W width of a head, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from graftlab.models.context import Context
from graftlab.models.lean_weights import LeanLayer, LeanWeights

FIRST = 256
"""Tokens that there is room for at first, per slot."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a slot reads in one pass."""

    slot: int
    ids: Sequence[int]
    last: int = 1
    """Of so many tokens at its end, logits are wanted."""


class Slots:
    """Sequences of one model, each in a slot that is emptied for the next one."""

    def __init__(self, weights: LeanWeights, *, count: int, limit: int | None) -> None:
        """`count` slots, of at most `limit` tokens each."""
        self.limit, self.lengths = limit, [0] * count
        self._weights = weights
        self._room = 0
        self._keys, self._values, self._cos, self._sin = (torch.empty(0) for _ in range(4))

    def empty(self, slot: int) -> None:
        """Forget what the slot has read."""
        self.crop(slot, 0)

    def crop(self, slot: int, length: int) -> None:
        """Forget all that the slot has read behind its first `length` tokens."""
        assert 0 <= length <= self.lengths[slot]
        self.lengths[slot] = length

    @torch.no_grad()
    def copy(self, source: int, slot: int) -> None:
        """Let `slot` have read what `source` has."""
        length = self.lengths[slot] = self.lengths[source]
        for kept in (self._keys, self._values):
            kept[:, slot, :length] = kept[:, source, :length]

    @torch.no_grad()
    def select(self, slots: Sequence[int]) -> None:
        """What was in these `slots`, in this order, is what there is from here on."""
        chosen = torch.tensor(slots)
        self.lengths = [self.lengths[slot] for slot in slots]
        self._keys, self._values = self._keys[:, chosen], self._values[:, chosen]

    @torch.no_grad()
    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """Next-token logits (rows, V) in fp32, those of each piece behind the other's."""
        spans, start = [], 0
        for piece in pieces:
            before, count = self.lengths[piece.slot], len(piece.ids)
            spans.append(_Span(piece.slot, start, start + count, before + count, piece.last))
            start += count
        self._make_room(max(span.length for span in spans))
        offsets = [torch.arange(span.before, span.length) for span in spans]
        positions = torch.cat(offsets)
        places = torch.cat(
            [span.slot * self._room + where for span, where in zip(spans, offsets, strict=True)]
        )
        ids = torch.tensor([token for piece in pieces for token in piece.ids])
        with torch.inference_mode(self._weights.is_copy):
            logits = self._compute(ids, positions, places, spans)
        for span in spans:
            self.lengths[span.slot] = span.length
        return logits

    def _compute(
        self, ids: Tensor, positions: Tensor, places: Tensor, spans: list[_Span]
    ) -> Tensor:
        weights = self._weights
        rows = functional.embedding(ids, weights.embedding)
        turn = self._cos[positions, None], self._sin[positions, None]
        wanted = torch.cat([torch.arange(span.stop - span.last, span.stop) for span in spans])
        for number, layer in enumerate(weights.layers):
            heads = self._attention(number, layer, rows, turn, places, spans)
            if number == len(weights.layers) - 1 and len(wanted) < len(rows):
                heads, rows = heads[wanted], rows[wanted]
            rows = layer.output.onto(rows, heads)
            gate, up = layer.gate_up(layer.before_mlp(rows)).chunk(2, dim=1)
            rows = layer.down.onto(rows, layer.activation(gate) * up)
        return weights.head(weights.norm(rows)).float()

    def _attention(
        self,
        number: int,
        layer: LeanLayer,
        rows: Tensor,
        turn: tuple[Tensor, Tensor],
        places: Tensor,
        spans: list[_Span],
    ) -> Tensor:
        """(N, H W), before the output projection."""
        weights = self._weights
        width, count, key_count = weights.head_dim, weights.num_heads, weights.num_key_heads
        qkv = layer.qkv(layer.before_attention(rows)).view(len(rows), -1, width)
        qk, value = qkv[:, : count + key_count], qkv[:, count + key_count :]
        if layer.of_heads is not None:
            of_queries, of_keys = layer.of_heads
            qk = torch.cat([of_queries(qk[:, :count]), of_keys(qk[:, count:])], dim=1)
        qk = _rotated(qk, *turn)
        query, key = qk[:, :count], qk[:, count:]
        keys, values = self._keys[number], self._values[number]
        keys.view(-1, key_count, width).index_copy_(0, places, key.to(keys.dtype))
        values.view(-1, key_count, width).index_copy_(0, places, value.to(keys.dtype))
        found = []
        for span in spans:
            k = keys[span.slot, : span.length].transpose(0, 1)[None]
            v = values[span.slot, : span.length].transpose(0, 1)[None]
            q = query[span.start : span.stop]
            if span.count == 1:  # the heads of one key are rows of the same product
                q = q.view(1, key_count, -1, width)
                out = functional.scaled_dot_product_attention(q, k, v, scale=layer.scale)
                found.append(out.view(1, count * width))
                continue
            out = functional.scaled_dot_product_attention(
                q.transpose(0, 1)[None],
                k,
                v,
                attn_mask=span.mask,
                is_causal=span.mask is None,
                scale=layer.scale,
                enable_gqa=count != key_count,
            )
            found.append(out[0].transpose(0, 1).reshape(span.count, count * width))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _make_room(self, length: int) -> None:
        """Room for `length` tokens in each slot."""
        if length <= self._room:
            return
        weights, before = self._weights, self._room
        self._room = max(length, 2 * before, FIRST)
        if self.limit is not None:
            self._room = max(length, min(self._room, self.limit))
        shape = (
            *(len(weights.layers), len(self.lengths), self._room),
            *(weights.num_key_heads, weights.head_dim),
        )
        kept = self._keys, self._values
        self._keys = torch.empty(shape, dtype=weights.dtype)
        self._values = torch.empty(shape, dtype=weights.dtype)
        if before:
            for old, new in zip(kept, (self._keys, self._values), strict=True):
                new[:, :, :before] = old
        rotary: Any = weights.rotary
        cos, sin = rotary(self._keys, torch.arange(self._room)[None])
        self._cos = cos[0]
        half = cos.shape[-1] // 2
        self._sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=1)


class _Span:
    """Rows `start` to `stop` of a pass, the last ones of a slot's `length` tokens."""

    __slots__ = ("before", "count", "last", "length", "mask", "slot", "start", "stop")

    def __init__(self, slot: int, start: int, stop: int, length: int, last: int) -> None:
        self.slot, self.start, self.stop, self.length, self.last = slot, start, stop, length, last
        self.count = stop - start
        self.before = length - self.count
        self.mask: Tensor | None = None
        if self.count > 1 and self.before:
            self.mask = torch.ones(self.count, length, dtype=torch.bool).tril(self.before)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads (N, H, W) at their positions; `sin` is negative in its first half (2104.09864)."""
    half = heads.shape[-1] // 2
    swapped = heads.roll(half, -1)
    return (heads * cos).addcmul_(swapped, sin)


class SlotContext(Context):
    """Rows that are read in step, each in a slot."""

    def __init__(
        self, weights: LeanWeights, *, limit: int | None, padding: Tensor | None = None
    ) -> None:
        """`padding` (B,) counts the left padding of each row, which no slot reads."""
        self.length, self.limit = 0, limit
        self._weights = weights
        self._slots: Slots | None = None
        self._starts = [] if padding is None else padding.tolist()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def feed(self, ids: Tensor, *, last: int | None = None) -> Tensor:
        if self._slots is None:
            self._slots = Slots(self._weights, count=len(ids), limit=self.limit)
            self._starts = self._starts or [0] * len(ids)
        pieces = []
        for slot, (row, start) in enumerate(zip(ids.tolist(), self._starts, strict=True)):
            read = row[max(0, start - self.length) :]
            wanted = len(row) if last is None else last
            pieces.append(Piece(slot, read, last=min(wanted, len(read))))
        logits = self._slots.read([piece for piece in pieces if piece.ids])
        self.length += ids.shape[1]
        # Zeros for what was asked of the padding, as anything will do.
        found = torch.split(logits, [piece.last for piece in pieces])
        wanted = ids.shape[1] if last is None else last
        return torch.stack([functional.pad(r, (0, 0, wanted - len(r), 0)) for r in found])

    def crop(self, length: int) -> None:
        assert 0 <= length <= self.length, f"cannot crop {self.length} tokens to {length}"
        for slot, start in enumerate(self._starts):
            assert self._slots is not None
            self._slots.crop(slot, max(0, length - start))
        self.length = length

    def select(self, rows: Tensor) -> None:
        assert self._slots is not None, "nothing is read yet"
        self._slots.select(rows.tolist())
        self._starts = [self._starts[row] for row in rows.tolist()]
