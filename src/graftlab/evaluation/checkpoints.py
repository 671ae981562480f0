"""A run's kept checkpoints as models: which epoch reads best, beside its validation loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.history import History
from graftlab.training.checkpoint import CheckpointStore

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel

Facts = dict[str, Any]
"""`step`, `epoch` and `valid_loss`, those that are known."""


def kept_checkpoints(run: str | None) -> dict[Path, Facts]:
    """Checkpoint -> what its run's log says of it, oldest first; nothing without a run.

    Raises ConfigError where it kept none.
    """
    if run is None:
        return {}
    folder = RunFolder(Path(run).expanduser())
    saved = CheckpointStore(folder.checkpoints).saved()
    if not saved:
        raise ConfigError(
            f"checkpoints={run}: there is no checkpoint in {folder.checkpoints}. Give a run's "
            "folder; checkpoint.keep=all keeps those of every epoch."
        )
    rows = {row["step"]: row for row in History(folder.path / "train_log.csv").rows}
    found: dict[Path, Facts] = {}
    for one in saved:
        row = rows.get(one.step, {})
        facts = {"epoch": row.get("epoch"), "valid_loss": row.get("valid_loss", one.valid_loss)}
        known = {key: value for key, value in facts.items() if value is not None}
        found[one.path.resolve()] = {"step": one.step, **known}
    return found


def named_by_step(
    found: dict[str, TrainedModel], kept: dict[Path, Facts]
) -> tuple[dict[str, TrainedModel], dict[str, Facts]]:
    """The models, checkpoints called `step-120` where no other is; and name -> facts."""
    models: dict[str, TrainedModel] = {}
    facts: dict[str, Facts] = {}
    for name, trained in found.items():
        own = kept.get(trained.adapter.path) if trained.adapter is not None else None
        if own is not None:
            short = f"step-{own['step']}"
            name = name if short in found or short in models else short
            facts[name] = own
        models[name] = trained
    return models, facts
