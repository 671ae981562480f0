"""One run as its folder tells it, finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from graftlab.reports.samples import Sample
from graftlab.tracking.history import Row
from graftlab.tracking.identity import BUDGETS
from graftlab.tracking.ranking import LOSS
from graftlab.tracking.result import Result

SEED = "seed"
STATES = ("done", "pruned", "running", "paused", "waiting", "unfinished", "failed", "unreadable")
"""What may have become of a run; without a ledger nobody knows whether it is still running."""
BROKEN = frozenset({"failed", "unfinished", "unreadable"})
"""States that want an explanation."""


UNDECISIVE = (
    *("callbacks.progress", "trainer.log_every", "checkpoint.keep"),
    "model.trust_remote_code",  # given on each command line, never by an experiment
)
"""Keys that change what is shown, kept or allowed, not what is computed; so do `BUDGETS`."""


@dataclass(kw_only=True, slots=True)
class ReportedRun:
    """What can be read of one run. Losses are in its `measure`, times are seconds."""

    folder: Path
    name: str
    """Its folder, as short as it stays unique."""
    state: str
    """One of STATES."""
    reason: str | None = None
    """Why it is not done, or why it ended early."""
    traceback: str | None = None
    """The whole of `error.txt`, where a sweep left one."""
    config: dict[str, Any] = field(default_factory=dict)
    """`run.yaml`, flat: dotted key -> value."""
    swept: Mapping[str, Any] = field(default_factory=dict)
    """The values that a sweep gave it, where a ledger says so."""
    rows: list[Row] = field(default_factory=list)
    """`train_log.csv`."""
    result: Result | None = None
    times: Mapping[str, Any] = field(default_factory=dict)
    """`time_metrics.json`."""
    card: Mapping[str, str] = field(default_factory=dict)
    """The provenance lines of `card.md`."""
    samples: list[Sample] = field(default_factory=list)

    def value(self, key: str) -> Any:
        """What `key` was set to; None where the run has no such key."""
        return self.config[key] if key in self.config else self.swept.get(key)

    @property
    def decisive(self) -> dict[str, Any]:
        """The keys that decide a result, flat."""
        chosen = self.config or dict(self.swept)
        idle = {key for key in chosen if key in UNDECISIVE or key.split(".")[0] in BUDGETS}
        return {key: value for key, value in chosen.items() if key not in idle}

    @property
    def counts(self) -> bool:
        """Whether its score may be compared: finished, not pruned, validated."""
        return self.state == "done" and self.score is not None and isfinite(self.score)

    @property
    def score(self) -> float | None:
        """What it is compared by, less being better: the best validation loss, so far if it is not
        finished, or what else its best step was chosen by (`Ranking.key`).
        """
        if self.result is not None:
            return self.result.rank
        if self.value("checkpoint.by") not in (None, LOSS):
            return None
        return min(map(validation, self._validated()), default=None)

    @property
    def measure(self) -> str | None:
        """What its score is; None where it is not finished."""
        if self.result is None:
            return None
        ranking = self.result.ranking
        return self.result.measure if ranking.is_loss else ranking.by

    @property
    def loss(self) -> float | None:
        """The validation loss of its best step."""
        return self.result.score if self.result is not None else None

    @property
    def shown(self) -> float | None:
        """The score as it was measured."""
        if self.result is None or self.score is None:
            return self.score
        return self.result.ranking.key(self.score)

    @property
    def baseline(self) -> float | None:
        """What the base alone measures by the same."""
        if self.result is not None:
            ranking = self.result.ranking
            own = self.result.base_metrics.get(ranking.column)
            return self.result.baseline if ranking.is_loss else own
        first = self.rows[0] if self.rows else {}
        return first.get("valid_loss") if first.get("step") == 0 else None

    @property
    def best_step(self) -> int | None:
        if self.result is not None:
            return self.result.best_step
        best = min(self._validated(), key=validation, default=None)
        return None if best is None else int(best["step"])

    def _validated(self) -> list[Row]:
        return [row for row in self.rows if row["step"] > 0 and isfinite(validation(row))]

    @property
    def steps(self) -> int | None:
        if self.result is not None:
            return self.result.steps
        return int(self.rows[-1]["step"]) if self.rows else None

    @property
    def tokens(self) -> int | None:
        """Training tokens processed."""
        if self.result is not None:
            return self.result.tokens
        return int(self.rows[-1].get("tokens", 0)) if self.rows else None

    @property
    def seconds(self) -> float | None:
        """Of training steps, over all starts."""
        told = self.times.get("train_seconds")
        return told if told is not None else (self.rows[-1].get("seconds") if self.rows else None)

    @property
    def cost(self) -> float | None:
        """US dollars: all of its time at the price of `device`.

        None where the run was on a GPU and `device` still names this machine's processor.
        """
        price, where = self.config.get("machine.price"), self.card.get("device", "")
        if price is None or self.seconds is None:
            return None
        if self.config.get("machine.kind") == "cpu" and not where.startswith("cpu"):
            return None
        return float(price) * max(self.seconds, self.times.get("total_seconds") or 0) / 3600


def validation(row: Row) -> float:
    """The validation loss of a logged step, a sweep's at a rung included; NaN without one."""
    return row.get("valid_loss", row.get("rung_loss", float("nan")))
