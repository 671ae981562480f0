"""Which metrics are asked for: the schema of the `metrics` group."""

from __future__ import annotations

from dataclasses import dataclass, field

from graftlab.errors import ConfigError
from graftlab.evaluation.metrics.base import Metric
from graftlab.registry import collection


@collection("metrics")
@dataclass(kw_only=True, slots=True)
class Metrics:
    """`metrics=style`, or several: `metrics=[style,exact-match]`."""

    chosen: dict[str, Metric] = field(default_factory=dict)

    def check(self, *, endpoint: bool) -> None:
        """Raise ConfigError where there is none, or one that lacks something.

        By some metrics an `endpoint` cannot be judged.
        """
        if not self.chosen:
            raise ConfigError("There is no metric: give metrics=[style] or others.")
        for key, metric in self.chosen.items():
            metric.check()
            if endpoint and metric.needs_likelihoods:
                name = key.replace("_", "-")
                raise ConfigError(f"An endpoint tells no likelihoods, which metrics={name} needs.")
