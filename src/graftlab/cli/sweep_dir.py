"""Where a sweep lies: as told, or by a name that the same or a widened line finds again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftlab.cli.overrides import Argument
from graftlab.registry import dump
from graftlab.sweeps.identity import sweep_name
from graftlab.sweeps.space import Dimension
from graftlab.tracking.identity import BUDGETS
from graftlab.verbs.train import TrainCommand

SWEEPS = Path("multirun")


def folder_of(
    base: TrainCommand,
    words: Sequence[Argument],
    dimensions: Sequence[Dimension],
    *,
    stands_alone: bool,
) -> Path:
    """The folder of the sweep that the words describe.

    `base` is the run without swept values. Where that cannot be (`stands_alone` is off) it holds
    the first of each, which another order would change: the words that hold for all name the sweep.
    """
    told = next((word for word in words if word.key == "hydra.sweep.dir"), None)
    if told is not None:
        return Path(told.typed.partition("=")[2]).expanduser()
    keys = [dimension.key for dimension in dimensions] or ["seed"]
    fixed = {word.key: word.hydra for word in words if word.key not in keys}
    if stands_alone:
        plain: dict[str, Any] = dump(replace(base, run_dir=""))
    else:
        idle = (*BUDGETS, "hydra")
        plain = {key: text for key, text in fixed.items() if key.split(".")[0] not in idle}
    return SWEEPS / (base.sweep.name or sweep_name(plain, keys, typed=fixed))
