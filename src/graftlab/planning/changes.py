"""Single changes to a run that does not fit, cheapest first, and the memory after each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from graftlab.adapters.origin import in_words
from graftlab.models.quantization.base import Codes
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from graftlab.planning.memory import Settings

LEAST_RANK = 8


@dataclass(frozen=True, slots=True)
class Knobs:
    """What of a run a change may turn."""

    batch_size: int
    accumulate: int
    rank: int
    max_length: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class Change:
    """One change: what to type, what it costs, and the bytes needed after it."""

    words: str
    price: str
    total: float
    fits: bool


def changes(knobs: Knobs, total: Callable[[Knobs], float], limit: float) -> list[Change]:
    """Every kind of change in its mildest form that fits into `limit` bytes, cheapest first.

    A kind that cannot bring the run down to `limit` is listed in its strongest form, not fitting.
    `total` gives the bytes, infinitely many for a run that cannot be (rows that hold no document).
    """
    found = []
    for kind in (_batches, _checkpointing, _precision, _quantised, _ranks, _rows):
        tried = [Change(w, p, t := total(k), t <= limit) for w, p, k in kind(knobs)]
        tried = [change for change in tried if change.total < math.inf]
        if tried:
            found.append(next((change for change in tried if change.fits), tried[-1]))
    return found


def together(knobs: Knobs, total: Callable[[Knobs], float], limit: float) -> list[Change]:
    """Batch, checkpointing and precision at once, all that changes no update to speak of; where
    that is too much still, with a base of four bits.
    """
    lossless = (_batches, _checkpointing, _precision)
    first = _strongest(lossless, knobs, total, limit)
    if first is not None and first.fits:
        return [first]
    second = _strongest((*lossless, _quantised), knobs, total, limit)
    return [change for change in (first, second) if change is not None]


def _strongest(
    kinds: Sequence[Callable[[Knobs], Iterator[Option]]],
    knobs: Knobs,
    total: Callable[[Knobs], float],
    limit: float,
) -> Change | None:
    """The last option of each kind, one upon the other; None where there is only one."""
    words = []
    for kind in kinds:
        options = list(kind(knobs))
        if options:
            word, _, knobs = options[-1]
            words.append(word)
    if len(words) < 2:
        return None
    needed = total(knobs)
    return Change(" ".join(words), "all of these at once", needed, needed <= limit)


Option = tuple[str, str, Knobs]


def _batches(knobs: Knobs) -> Iterator[Option]:
    size = knobs.batch_size
    while size > 1:
        size //= 2
        times = -(-knobs.batch_size * knobs.accumulate // size)
        yield (
            f"batch_size={size} accumulate={times}",
            "the same update in smaller pieces",
            replace(knobs, batch_size=size, accumulate=times),
        )


def _checkpointing(knobs: Knobs) -> Iterator[Option]:
    if not knobs.settings.checkpointing:
        yield (
            "model.gradient_checkpointing=true",
            "the same update, about a third slower",
            replace(knobs, settings=replace(knobs.settings, checkpointing=True)),
        )


def _precision(knobs: Knobs) -> Iterator[Option]:
    if knobs.settings.precision == "fp32":
        yield (
            "precision=bf16-mixed",
            "the base in 16 bits; fastest with bf16 arithmetic",
            replace(knobs, settings=replace(knobs.settings, precision="bf16-mixed")),
        )


def _quantised(knobs: Knobs) -> Iterator[Option]:
    """Every storage that takes less than that of the run; none of it where all is trained."""
    present = knobs.settings.quantization
    head = isinstance(present, Codes) and present.head
    smaller = (
        (Int8(head=head), "next to no loss"),
        (NF4(head=head), "rounds the base: for more than about a billion parameters"),
        (NF4(head=head, double=True), "as nf4, with the scales in 8 bits too"),
    )
    if not knobs.settings.quantises or not knobs.rank:
        return
    titles = ["", *(choice.title for choice, _ in smaller)]
    if present.title not in titles:
        return
    for choice, price in smaller[titles.index(present.title) :]:
        settings = replace(knobs.settings, quantization=choice)
        yield in_words(choice), price, replace(knobs, settings=settings)


def _ranks(knobs: Knobs) -> Iterator[Option]:
    rank = knobs.rank
    while rank > LEAST_RANK:
        rank = max(LEAST_RANK, rank // 2)
        yield (f"lora.rank={rank}", "a smaller adapter", replace(knobs, rank=rank))


def _rows(knobs: Knobs) -> Iterator[Option]:
    length = knobs.max_length
    while length > 512:
        length = max(512, length // 2)
        yield (
            f"packing.max_length={length}",
            "longer documents are dropped",
            replace(knobs, max_length=length),
        )
