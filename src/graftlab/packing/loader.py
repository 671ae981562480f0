"""The training and validation loaders: order is f(seed, epoch), progress is two integers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graftlab.packing.rows import make_batch
from graftlab.types import Batch

if TYPE_CHECKING:
    from graftlab.text.encode import TokenSet

Rows = Sequence[Sequence[int]]


class PackedLoader:
    """Yields one process's micro-batches of an epoch, and knows where it is.

    Every process yields the same number of batches; row k of the epoch's order goes to process
    `(k // batch_size) % world_size`. The state is `(epoch, batches already yielded)`: a resumed
    loader goes on with the very next batch, and after the last batch of an epoch it points at the
    beginning of the next.
    """

    def __init__(
        self,
        tokens: TokenSet,
        rows: Rows,
        *,
        batch_size: int,
        accumulate: int = 1,
        units: np.ndarray | None = None,
        seed: int | None = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`units` (documents,) are what each adds to the divisor of its step (default: what its
        labels weigh); `seed=None` keeps the rows in their order (validation).
        """
        self.tokens, self.rows = tokens, rows
        self.batch_size, self.accumulate, self.seed = batch_size, accumulate, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.done = 0, 0
        self.mismatched: TokenSet | None = None
        """As many documents as `tokens` has, which the first batch of a step brings along."""
        self.branched = tokens.branched
        """Whether a document has branches behind a shared prompt."""
        self._units = tokens.label_weights if units is None else units

    def __len__(self) -> int:
        """Micro-batches per epoch."""
        return math.ceil(len(self.rows) / (self.batch_size * self.world_size))

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        return math.ceil(len(self) / self.accumulate)

    def order(self, epoch: int) -> np.ndarray:
        """Row indices in the order of this epoch."""
        if self.seed is None:
            return np.arange(len(self.rows))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))

    def _documents(self, order: np.ndarray, batch: int, rank: int | None = None) -> list[int]:
        """Documents of one micro-batch: of one process, or (rank=None) of all of them."""
        width = self.batch_size * self.world_size
        start, stop = batch * width, (batch + 1) * width
        if rank is not None:
            start += rank * self.batch_size
            stop = start + self.batch_size
        return [document for row in order[start:stop] for document in self.rows[row]]

    def __iter__(self) -> Iterator[Batch]:
        order, total = self.order(self.epoch), len(self)
        for index in range(self.done, total):
            first = index - index % self.accumulate
            window = range(first, min(first + self.accumulate, total))
            units = sum(self._units[self._documents(order, b)].sum().item() for b in window)
            batch = make_batch(
                self.tokens,
                self._documents(order, index, self.rank),
                step_units=units,
                micro_step=index - first,
                ends_step=index == window[-1],
            )
            if self.mismatched is not None and index == first:
                batch.mismatched = tuple(
                    make_batch(
                        self.mismatched, self._documents(order, b, self.rank), step_units=units
                    )
                    for b in window
                )
            # Moved before yielding: whoever saves the state after this batch resumes behind it.
            self.done = index + 1
            if self.done == total:
                self.epoch, self.done = self.epoch + 1, 0
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.done = int(state["epoch"]), int(state["done"])
