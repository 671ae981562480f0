"""What every metric is: names of measures, which way each is better, and a score for a reply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftlab.registry import group

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt
    from graftlab.types import Conversation

MORE, LESS = "more", "less"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of a metric."""

    about: str
    """For people, in a few words."""
    better: str | None = None
    """`more`, `less`, or None: neither is better, and nobody is called so by it."""
    share: bool = False
    """Scores are 0 or 1, and their mean is told in percent."""
    most: float | None = None
    """Scores lie between 0 and this; None where there is no such bound."""
    timed: bool = False
    """It depends on the machine: it says nothing of an adapter, and no two runs have it alike."""

    def __post_init__(self) -> None:
        if self.share:
            object.__setattr__(self, "most", 1.0)

    @property
    def unit(self) -> float:
        """What a mean of scores is multiplied by where it is told."""
        return 100.0 if self.share else 1.0


@group("metrics")
@dataclass(kw_only=True, slots=True)
class Metric(ABC):
    """One metric; its fields are the keys `metrics.NAME.KEY`."""

    needs_likelihoods: ClassVar[bool] = False
    """Whether it is about the options of a prompt, whose likelihoods are then computed."""

    @abstractmethod
    def measures(self) -> dict[str, Measure]:
        """The numbers that it gives, by name; `pct_...` is a share, `avg_...` a mean."""

    @abstractmethod
    def score(self, case: Case) -> Judged:
        """A score for each measure."""

    def check(self) -> None:
        """Raise ConfigError for a key or a file that is missing, before anybody is asked."""
        return

    def lacks(self, prompt: Prompt) -> str | None:
        """What a prompt must have and has not, in words; None where it can be judged."""
        return None

    def score_all(
        self, cases: Sequence[Case], training: Callable[[], Iterable[Conversation]]
    ) -> list[Judged]:
        """Scores of all replies of all models; `training` gives the rows they were trained on."""
        return [self.score(case) for case in cases]


def lacks_reference(prompt: Prompt) -> str | None:
    """For metrics that compare: what to say of a prompt without a reference."""
    return None if prompt.expected is not None else "no `reference`, nor an answer at its end"
