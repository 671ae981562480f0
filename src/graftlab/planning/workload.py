"""What there is to train on: documents, rows, steps, and the micro-batch that needs most memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graftlab.data.budget import Budget, budget
from graftlab.errors import DataError
from graftlab.packing.plan import Packing, plan_rows
from graftlab.types import Conversation, Message

LETTERS_PER_TOKEN = 4.0
"""English prose under a vocabulary of 32,000 to 150,000 tokens: 3.8 to 4.6 letters a token."""
TURN_TOKENS = 5
"""What a chat template writes around a turn: ChatML's two markers, role and line break."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Tokens and trained tokens per document, (n,) each, and how they are known."""

    lengths: np.ndarray
    labels: np.ndarray
    source: str  # for people
    exact: bool = True
    valid_tokens: int = 0
    segments: int = 0  # of them and of the validation documents
    notes: list[str] = field(default_factory=list)  # for people, too


@dataclass(frozen=True, slots=True)
class Workload:
    """A run in numbers; tokens are those of one process's micro-batch where that is said."""

    budget: Budget
    lengths: np.ndarray
    source: str
    exact: bool
    steps: int
    epochs: float
    passes: int  # forward and backward passes of one process
    batch_tokens: int  # largest micro-batch of one process
    batch_labels: int
    mean_batch_tokens: float
    valid_tokens: int
    validations: int
    processes: int
    segments: int = 0  # of all documents, those for validation as well

    @property
    def tokens_per_step(self) -> float:
        """Over all processes and micro-batches."""
        return self.budget.tokens_per_step

    @property
    def documents_per_pass(self) -> float:
        """Documents in a micro-batch, on average."""
        return self.mean_batch_tokens / self.mean_length

    @property
    def labelled(self) -> float:
        """Share of tokens that are trained."""
        return self.budget.trained_tokens / self.budget.tokens

    @property
    def mean_length(self) -> float:
        """Tokens of a document."""
        return float(self.lengths.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """How often, in the words of a run's configuration."""

    batch_size: int
    accumulate: int
    epochs: int
    max_steps: int | None
    processes: int = 1
    validate_epochs: int | None = 1
    validate_steps: int | None = None


def lay_out(
    documents: Documents, packing: Packing, schedule: StepSettings, *, valid_tokens: int = 0
) -> Workload:
    """Pack the documents and count the steps as training does.

    The largest micro-batch is that of the `batch_size` fullest rows: the order of rows is drawn
    anew every epoch, so sooner or later they meet. Raises DataError if no document fits a row.
    """
    fits = documents.lengths <= packing.max_length
    lengths, labels = documents.lengths[fits], documents.labels[fits]
    if len(lengths) == 0:
        raise DataError(
            f"No document is within packing.max_length={packing.max_length}: nothing would be "
            f"trained. The shortest has {int(documents.lengths.min())} tokens."
        )
    rows = plan_rows(lengths.tolist(), packing)
    made = budget(
        lengths,
        labels,
        rows,
        max_length=packing.max_length,
        batch_size=schedule.batch_size * schedule.processes,
        accumulate=schedule.accumulate,
        over_limit=int((~fits).sum()),
    )
    steps = schedule.max_steps or schedule.epochs * made.steps_per_epoch
    filled = np.array([lengths[row].sum() for row in rows])
    micro_batches = math.ceil(len(rows) / schedule.batch_size)
    return Workload(
        budget=made,
        lengths=lengths,
        source=documents.source,
        exact=documents.exact,
        steps=steps,
        epochs=steps / made.steps_per_epoch,
        passes=max(1, round(steps / made.steps_per_epoch * micro_batches / schedule.processes)),
        batch_tokens=_fullest(filled, schedule.batch_size),
        batch_labels=_fullest(np.array([labels[row].sum() for row in rows]), schedule.batch_size),
        mean_batch_tokens=made.tokens / micro_batches,
        valid_tokens=valid_tokens,
        validations=_validations(schedule, steps, made.steps_per_epoch) if valid_tokens else 0,
        processes=schedule.processes,
        segments=documents.segments,
    )


def _fullest(totals: np.ndarray, count: int) -> int:
    return int(np.sort(totals)[::-1][:count].sum())


def _validations(schedule: StepSettings, steps: int, per_epoch: int) -> int:
    """Passes over the validation set: the base's before training, when due, and the last."""
    due = {steps}
    if schedule.validate_epochs:
        due |= set(range(0, steps + 1, schedule.validate_epochs * per_epoch))
    if schedule.validate_steps:
        due |= set(range(0, steps + 1, schedule.validate_steps))
    return 1 + len(due - {0})


def guess_documents(conversations: Sequence[Conversation]) -> Documents:
    """Lengths from letters, where the model's tokenizer is not on this machine."""
    lengths, labels = [], []
    for conversation in conversations:
        turns, answers = list(conversation.messages), conversation.messages
        if conversation.kind != "answers":
            answers = answers[conversation.num_shared :]
        if conversation.rejected:
            other = conversation.rejected[conversation.num_shared :]
            turns, answers = [*turns, *other], answers + other
        lengths.append(max(2, round(sum(_letters(m) + TURN_TOKENS for m in turns))))
        trained = sum(_letters(m) + 1 for m in answers if m.role == "assistant" and m.weight)
        labels.append(min(lengths[-1], max(1, round(trained))))
    return Documents(
        np.array(lengths, np.int64),
        np.array(labels, np.int64),
        f"estimated from letters ({LETTERS_PER_TOKEN:g} a token): the tokenizer is not here",
        exact=False,
    )


def _letters(message: Message) -> float:
    """Tokens of a turn's text, as far as letters tell."""
    return (len(message.text) + len(message.reasoning or "")) / LETTERS_PER_TOKEN
