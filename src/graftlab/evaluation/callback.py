"""`callbacks=[default,evaluate] metrics=[exact-match]`: metrics of replies while a run trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, require_range
from graftlab.evaluation.metrics.chosen import Metrics
from graftlab.registry import choice
from graftlab.training.callbacks.spec import CallbackSpec

if TYPE_CHECKING:
    from graftlab.training.callbacks.spec import Measurer, Rows


@choice("evaluate")
@dataclass(kw_only=True, slots=True)
class Evaluate(CallbackSpec):
    """Answer held-out prompts every N epochs and score the replies, as `graftlab evaluate` does."""

    metrics: Metrics = field(default_factory=Metrics)
    """What replies score; each measure is `valid/METRIC/MEASURE` in the log."""
    prompts: str | None = None
    """A file of prompts with references; null asks the rows that the run holds out."""
    limit: int | None = 64
    """Only the first N prompts; null for all."""
    every_epochs: int | None = 1
    """After every N epochs, and always after the last step; null for that alone."""
    every_steps: int | None = None
    """Also after every N optimizer steps."""
    batch: int = 16
    """Prompts that are answered together."""

    def __post_init__(self) -> None:
        for key in ("limit", "every_epochs", "every_steps", "batch"):
            require_range(f"callbacks.evaluate.{key}", getattr(self, key), least=1)
        if self.metrics.chosen:
            self.metrics.check(endpoint=False)

    def measures(self) -> dict[str, str | None]:
        return {
            f"{name.replace('_', '-')}/{measure}": about.better
            for name, metric in self.metrics.chosen.items()
            for measure, about in metric.measures().items()
            if not about.timed
        }

    @property
    def repeats(self) -> bool:
        return self.every_epochs is not None or self.every_steps is not None

    def measurer(self, rows: Rows) -> Measurer:
        """Raises ConfigError or DataError where there is no metric, no prompt, or one that a metric
        cannot judge.
        """
        from graftlab.evaluation.questions import refuse_lacking
        from graftlab.evaluation.while_training import Asking, asked

        if not self.metrics.chosen:
            raise ConfigError("callbacks.evaluate has no metric: give metrics=[style] or others.")
        prompts, what = asked(self.prompts, rows, limit=self.limit)
        refuse_lacking(what, prompts, self.metrics.chosen)
        return Asking(
            prompts,
            rows,
            metrics=self.metrics.chosen,
            measures=self.measures(),
            batch=self.batch,
            every_epochs=self.every_epochs,
            every_steps=self.every_steps,
        )
