"""The verb `train`: from configuration to an adapter folder and a result."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.recipes.dataset import ensure_dataset
from graftlab.sweeps.launchers.base import Launcher
from graftlab.sweeps.spec import Sweep
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.ranking import LOSS
from graftlab.tracking.result import Result
from graftlab.training.auto import resolve_auto
from graftlab.training.checkpoint import CheckpointStore
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run as train


@dataclass(kw_only=True, slots=True)
class TrainCommand(TrainSpec):
    """`graftlab train`: a run, and with -m how its keys are swept; `conf/train.yaml` fills it."""

    sweep: Sweep = field(default_factory=Sweep)
    launcher: Launcher | None = None
    """Where the jobs of a sweep run; null is the group's `auto`."""

    def __post_init__(self) -> None:
        by, metric = self.checkpoint.by, self.sweep.metric
        if metric is not None:
            if by not in (LOSS, metric):
                raise ConfigError(
                    f"checkpoint.by={by} and sweep.metric={metric}: jobs are compared by what "
                    "makes their best checkpoint; leave one out."
                )
            self.checkpoint.by = metric
        TrainSpec.__post_init__(self)

    def training(self) -> TrainSpec:
        """The run alone."""
        return TrainSpec(**{key.name: getattr(self, key.name) for key in fields(TrainSpec)})


def run(command: TrainCommand) -> Result:
    """Train as configured and leave a run folder behind; a finished one is only reported.

    Raises GraftlabError (with the fix) for what the user can mend, and Interrupted after a signal,
    when the run is saved and can go on with `resume=auto`.
    """
    spec = command.training()
    if spec.budget.given:
        _keep_within_budget(spec)
    return train(spec)


def _keep_within_budget(spec: TrainSpec) -> None:
    """Raises ConfigError before anything is loaded; steps taken before a kill are paid already."""
    from graftlab.planning.budget import refuse_over_budget

    folder = RunFolder(Path(spec.run_dir))
    if folder.finished:
        return
    ensure_dataset(spec.data)
    resolve_auto(spec)
    last = CheckpointStore(folder.checkpoints).last()
    refuse_over_budget(spec, done_steps=last.step if last and spec.resume else 0)
