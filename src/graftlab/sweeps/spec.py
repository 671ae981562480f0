"""The `sweep` node: what is tried, how often, and what is given up early."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from graftlab.errors import ConfigError, require_choice, require_range

SEARCHES = ("grid", "random", "tpe", "gp")
PRUNERS = ("none", "asha", "median")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(kw_only=True, slots=True)
class Sweep:
    """What `-m` does with the swept values; but for `metric`, none of it changes a single job."""

    name: str | None = None
    """Folder under multirun/; null takes a name from the configuration without the swept values,
    so that the same or a widened line finds its sweep again."""
    metric: str | None = None
    """What jobs are compared by, searched and pruned by: it sets `checkpoint.by` of each; null
    takes what that says."""
    space: dict[str, Any] = field(default_factory=dict)
    """Key -> values, as they would be typed; a key typed on the command line wins."""
    when: dict[str, str] = field(default_factory=dict)
    """Key -> `other=value`: the key is only swept where that holds."""
    search: str = "grid"
    """grid tries every combination; random, tpe and gp try `trials` of them."""
    trials: int | None = None
    """How many points random, tpe and gp try."""
    timeout: float | None = None
    """Minutes after which no further job is started."""
    seeds: int = 1
    """Train every point with so many seeds: seed, seed + 1, ..."""
    retries: int = 1
    """How often a job that crashed is tried again in the same launch."""
    pruner: str = "none"
    """none, asha or median: jobs that fall behind at a rung are not trained on."""
    reduction: int = 3
    """asha: one in so many goes on from each rung, and rungs lie so many times further apart."""
    first_rung: float | None = None
    """Epochs to the first rung; null: 1 / reduction^2 of each run for asha, an epoch for median."""

    def __post_init__(self) -> None:
        require_choice("sweep.search", self.search, SEARCHES)
        require_choice("sweep.pruner", self.pruner, PRUNERS)
        require_range("sweep.trials", self.trials, least=1)
        require_range("sweep.timeout", self.timeout, above=0)
        require_range("sweep.seeds", self.seeds, least=1)
        require_range("sweep.retries", self.retries, least=0)
        require_range("sweep.reduction", self.reduction, least=2)
        require_range("sweep.first_rung", self.first_rung, above=0)
        if self.name is not None and not NAME.fullmatch(self.name):
            raise ConfigError(
                f"sweep.name={self.name} names a folder: letters, digits, dots, dashes and "
                "underscores, 80 at most, beginning with a letter or digit."
            )
        if self.search == "grid" and self.trials is not None:
            raise ConfigError(
                "sweep.trials counts the points of a search; a grid tries all of its own. Add "
                "sweep.search=random, tpe or gp."
            )
        if self.search != "grid" and self.trials is None:
            raise ConfigError(f"sweep.search={self.search} needs sweep.trials=N: how many to try.")
