"""By what the steps of a run, and the runs of a sweep, are told better and worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graftlab.errors import ConfigError, did_you_mean
from graftlab.tracking.history import PREFIX

LOSS = "loss"
MORE, LESS = "more", "less"


@dataclass(frozen=True, slots=True)
class Ranking:
    """The validation loss, or a measure of a callback such as `exact-match/pct_exact`."""

    by: str = LOSS
    better: str = LESS
    """`more` or `less`."""

    @property
    def is_loss(self) -> bool:
        return self.by == LOSS

    @property
    def name(self) -> str:
        """For people."""
        return "validation loss" if self.is_loss else self.by

    @property
    def told(self) -> str:
        """With its article."""
        return "a validation loss" if self.is_loss else self.by

    @property
    def column(self) -> str:
        """Where a row of the log has it."""
        return "valid_loss" if self.is_loss else f"{PREFIX}{self.by}"

    def key(self, value: float) -> float:
        """The value as a number of which less is better; of that number again the value."""
        return 0.0 - value if self.better == MORE else value


def ranking_by(by: str, measures: Mapping[str, str | None], *, key: str) -> Ranking:
    """What `key`=`by`, not the loss, means: one of `measures` (name -> the better end), or a metric
    that has a single one with a better end.

    Raises ConfigError where that is none, or not a single one.
    """
    if not measures:
        raise ConfigError(
            f"{key}={by} is measured by no callback: give callbacks=[default,evaluate] and "
            f"metrics={by.partition('/')[0]}."
        )
    judged = {name: better for name, better in measures.items() if better is not None}
    if by in measures and by not in judged:
        raise ConfigError(f"{key}={by}: neither more nor less of it is better.")
    found = [name for name in judged if by in (name, name.rpartition("/")[0])]
    if len(found) == 1:
        return Ranking(found[0], str(judged[found[0]]))
    known = ", ".join([LOSS, *judged])
    if found:
        raise ConfigError(f"{key}={by} has several measures: give one of {', '.join(found)}.")
    raise ConfigError(f"{key}={by} is not one of {known}.{did_you_mean(by, [LOSS, *judged])}")
