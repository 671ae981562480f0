"""What a callback of the group `callbacks` is, and what it sees of a run.

It is its keys and what it does with them. What it remembers lies in `state`, a dictionary of its
own for each run: checkpoints keep it, a resumed run goes on with it, and runs that train together
share none. So nothing is kept on the object itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.registry import group

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from graftlab.data.source import DataSpec
    from graftlab.generation.sampling import Generation
    from graftlab.models.base import Base
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.tracking.ranking import Ranking
    from graftlab.types import Conversation

State = dict[str, Any]
"""What a callback remembers: numbers, texts, lists, dictionaries and tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An optimizer step that has just ended."""

    number: int
    """Steps taken, this one included."""
    total: int
    """The run's planned steps."""
    per_epoch: int
    loss: float
    """Training loss of this step alone, in what the objective measures."""
    row: Mapping[str, float]
    """The step's row as `train_log.csv` may get it: its `loss` is the mean since the last row that
    was written, and `valid_loss` (and `valid/NAME`) are there after a validation."""
    metrics: Mapping[str, float]
    """What the objective logs of this step alone, `loss` among it."""
    ranking: Ranking
    """By what steps are told better and worse, and in which column of `row` it is."""
    warn: Callable[[str], None]
    """Says a line to people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Replies to held-out prompts that were just sampled."""

    step: int
    per_epoch: int
    precision: str
    rows: Sequence[Mapping[str, Any]]
    """One for each prompt: step, prompt, base, adapter and expected."""
    repetition: Sequence[tuple[float, float]]
    """Shares of repeated 3-grams in the replies of (base, adapter), one for each prompt."""
    warn: Callable[[str], None]
    """Says a line to people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The data of a run, before its base is loaded."""

    train: Sequence[Conversation]
    valid: Sequence[Conversation]
    """Held out; whole, with their last answers."""
    tokenizer: Tokenizer
    generation: Generation
    data: DataSpec
    """How they were read."""


class Measurer(ABC):
    """Measures replies of a run's model while it trains; made by a callback of the group."""

    every_epochs: int | None
    """After every N epochs, and always after the last step."""
    every_steps: int | None
    """Also after every N optimizer steps."""

    @abstractmethod
    def measure(self, base: Base) -> dict[str, float]:
        """Measure -> value, by the base with whatever adapter is on at the moment.

        With several processes each calls it, and what the first of them finds holds for all. No
        random numbers of the process may be drawn.
        """


@group("callbacks")
@dataclass(kw_only=True, slots=True)
class CallbackSpec:
    """One callback; its fields are the keys `callbacks.NAME.KEY`."""

    waits_for_validation: ClassVar[bool] = False
    """Whether it does nothing without a validation loss, or what else `checkpoint.by` names: then
    runs without are refused."""

    def measures(self) -> dict[str, str | None]:
        """Numbers that it measures, `valid/NAME` in the log: NAME -> which way is better, `more`,
        `less` or None. Checkpoints, early stopping and sweeps may go by those with a better end.
        """
        return {}

    @property
    def repeats(self) -> bool:
        """Whether it measures before the last step."""
        return False

    def measurer(self, rows: Rows) -> Measurer | None:
        """What measures them in one run. Raises GraftlabError where these rows will not do."""
        return None

    def after_step(self, step: Step, state: State) -> str | None:
        """Look at a step; a reason ends the run after it, whole and saved.

        With several processes each calls it, and what the first of them says holds for all.
        """
        return None

    def after_samples(self, drawn: Drawn, state: State) -> str | None:
        """Look at sampled replies; a reason ends the run. The last ones come when it has ended."""
        return None

    def lightning(self) -> Callback | None:
        """A callback of Lightning's that takes part in the training; a run with one trains alone.

        It acts after the measurements of a step and before its row and checkpoint are written.
        """
        return None

    @property
    def needs_lightning(self) -> bool:
        """Whether it brings a callback of Lightning's."""
        return type(self).lightning is not CallbackSpec.lightning
