"""The `tune` node: what is tuned, and what that may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graftlab.errors import AUTO, ConfigError, require_range

FIXED = ("data", "model", "quantization", "precision", "packing", "batch_size", "accumulate")
"""Keys that change what a step or a loss is: runs that differ in them are not compared here."""
OTHERS = ("schedule", "max_steps", "max_minutes", "seed", "trainer", "machine", "budget", "name")
WHOLE = ("objective", "logger", "checkpoint", "callbacks", "experiment", "debug", "sweep", "tune")


def _usual() -> dict[str, Any]:
    return {"lr": AUTO, "lora.rank": AUTO, "epochs": AUTO}


@dataclass(kw_only=True, slots=True)
class Tuning:
    """What `graftlab tune` chooses among, and when it stops."""

    space: dict[str, Any] = field(default_factory=_usual)
    """Key -> values, as they would be typed; a key typed on the command line wins. `auto` takes
    values around those of the guides."""
    share: float = 0.2
    """At most this part of the optimizer steps that the whole grid would take."""
    max_runs: int | None = None
    """At most so many runs."""
    ladder_steps: int = 32
    """Optimizer steps of the first runs, which find the range of learning rates."""

    def __post_init__(self) -> None:
        require_range("tune.share", self.share, above=0, most=1)
        require_range("tune.max_runs", self.max_runs, least=1)
        require_range("tune.ladder_steps", self.ladder_steps, least=8)


def refuse_keys(keys: list[str]) -> None:
    """Raise ConfigError for keys whose values cannot be told better and worse by one loss."""
    for key in keys:
        if key.split(".")[0].partition("@")[0] in (*FIXED, *OTHERS, *WHOLE):
            raise ConfigError(
                f"{key} cannot be tuned: under another one losses or steps are not the same "
                f"measure. Leave it out of the space, or sweep it: graftlab train -m {key}=..."
            )
