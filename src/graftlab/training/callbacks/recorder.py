"""Recorder and HistoryWriter: what a step measured, as one row of the history."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from graftlab.errors import NonFiniteError
from graftlab.tracking.history import PREFIX, History, Row
from graftlab.tracking.ranking import Ranking
from graftlab.training.callbacks.base import StepCallback
from graftlab.training.paired import paired_interval

if TYPE_CHECKING:
    from graftlab.tracking.tracker import Tracker
    from graftlab.training.evaluate import Evaluation, Numbers
    from graftlab.training.module import AdapterModule
    from graftlab.training.paired import Documents
    from graftlab.training.step_plan import StepPlan
    from graftlab.types import Batch

WARM_STEPS = 2
"""Steps after a start that throughput leaves out: they compile, and fault memory in."""


KEPT = (
    "step",
    "stop_reason",
    "late",
    "baseline",
    "best",
    "best_step",
    "base_documents",
    "intervals",
    "tokens",
    "trained_tokens",
    "seconds",
    "busy",
    "steady",
)
"""What a checkpoint keeps of the recorder, besides the open window."""


class Recorder(StepCallback):
    """Counts tokens and time, and keeps the row of the step in progress."""

    def __init__(
        self,
        plan: StepPlan,
        *,
        peak: float,
        flops_per_token: float,
        ranking: Ranking | None = None,
    ) -> None:
        """`peak`: matrix FLOP/s of the device; `flops_per_token`: of one training step; `ranking`:
        by what steps are told better and worse (default: the validation loss).
        """
        self.ranking = ranking or Ranking()
        self.plan, self.peak, self.flops_per_token = plan, peak, flops_per_token
        self.row: Row = {}
        self.step_loss = 0.0  # of the step in progress alone; the row's loss is since the last row
        self.step_metrics: Mapping[str, float] = {}  # likewise, all that is logged
        self.due = False  # whether this step's row is to be written whatever `log_every` says
        self.ranks = True  # whether this step's adapter may be the best
        self.stop_reason: str | None = None
        self.late: float | None = None  # the max_minutes that ended the run, if they did
        self.baseline: float | None = None  # the base's validation loss
        self.before: Row = {}  # what was measured of the base, as columns of a row
        self.best, self.best_step = float("inf"), 0  # by `ranking`, less is better
        self.base_documents: Documents | None = None
        self.intervals: dict[int, tuple[float, float] | None] = {}  # of the change, by step
        self.share = 1.0  # of the machine, while other runs train in the same step
        self.step = 0
        self.tokens = self.trained_tokens = 0
        self.seconds = 0.0  # of training steps, over all starts; of shared ones, the share
        self.busy = 0.0  # of training steps, shared or not
        self._window: dict[str, float] = {}  # sums since the last written row
        self._window_units = 0.0
        self.steady = [0, 0.0]  # tokens and seconds of the steps after each start's warm ones
        self._steps_here = 0
        self._begin = self._origin = 0.0
        self._stands: float | None = None

    @property
    def elapsed(self) -> float:
        """Wall-clock seconds since training started here, validation and all, but for those in
        which it stood still.
        """
        now = time.perf_counter() if self._stands is None else self._stands
        return now - self._origin

    def stand(self) -> None:
        """Until `go_on` only others train: this run's time does not pass."""
        if self._stands is None:
            self._stands = time.perf_counter()

    def go_on(self) -> None:
        """Time passes again, if it stood."""
        if self._stands is not None:
            self._origin += time.perf_counter() - self._stands
            self._stands = None

    @property
    def tokens_per_second(self) -> float:
        """Of training steps only, without the first ones of this start when there are others."""
        tokens, seconds = self.steady if self.steady[1] else (self.tokens, self.seconds)
        return tokens / seconds if seconds else 0.0

    @property
    def valid_documents(self) -> int | None:
        """Validation documents with labels; None where their losses are not known."""
        documents = self.base_documents
        return None if documents is None else sum(labels > 0 for _, labels in documents)

    @property
    def mean_share(self) -> float:
        """The part of its steps' time that is counted as this run's: 1 for a run alone."""
        return self.seconds / self.busy if self.busy else 1.0

    @property
    def steps_per_second(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._origin = time.perf_counter()
        if self.late is not None:  # out of time then, and it has more now
            self.stop_reason = self.late = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if batch.micro_step == 0:
            self._begin = time.perf_counter()

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        """Raises NonFiniteError where the step's update went wrong: before all others act."""
        module.check_weights()
        whole = time.perf_counter() - self._begin
        seconds = whole * self.share
        self.busy += whole
        self.step_metrics = module.means
        self.step_loss = self.step_metrics["loss"]
        self._count(seconds, module.tokens, module.labels)
        for name, total in module.totals.items():
            self._window[name] = self._window.get(name, 0.0) + total
        self._window_units += module.units
        speed = module.tokens / seconds
        self.due, self.ranks, self.step = False, True, trainer.global_step
        self.row = {
            "step": self.step,
            "epoch": trainer.global_step / self.plan.steps_per_epoch,
            **module.objective.logged(self._window, self._window_units),
            "learning_rate": module.lr * module.factor(trainer.global_step - 1),
            "grad_norm": module.grad_norm,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "seconds": self.seconds,
            "tokens_per_second": speed,
            "trained_tokens_per_second": module.labels / seconds,
            "share_of_peak": speed * self.flops_per_token / self.peak / trainer.world_size,
        }
        if self.share < 1:
            self.row["share"] = self.share

    def _count(self, seconds: float, tokens: int, labels: int) -> None:
        self.tokens += tokens
        self.trained_tokens += labels
        self.seconds += seconds
        self._steps_here += 1
        if self._steps_here > WARM_STEPS:
            self.steady[0] += tokens
            self.steady[1] += seconds

    def close_window(self) -> None:
        """The row was written: the next one starts its means anew."""
        self._window, self._window_units = {}, 0.0

    def measured(self, base: Evaluation) -> None:
        """The base's own validation, before the first step."""
        self.baseline, self.before = base.numbers["loss"], columns(base.numbers)
        self.base_documents = base.documents

    def validated(self, tuned: Evaluation, *, ranks: bool = True) -> None:
        """Put a validation into the row and remember the best loss, if it `ranks` at all.

        Raises NonFiniteError.
        """
        numbers, loss = tuned.numbers, tuned.numbers["loss"]
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"Step {self.step}: the validation loss is {loss}. Lower lr, or lengthen the "
                "warm-up."
            )
        self.row.update(columns(numbers))
        self.due, self.ranks = True, ranks
        self._rank()
        if self.base_documents is not None and tuned.documents is not None:
            self.intervals[self.step] = paired_interval(self.base_documents, tuned.documents)

    def evaluated_base(self, numbers: Numbers) -> None:
        """What was measured of the base's own replies, before the first step."""
        self.before.update({f"{PREFIX}{name}": value for name, value in numbers.items()})

    def evaluated(self, numbers: Numbers) -> None:
        """Put what was measured of replies into the row, and remember the best."""
        self.row.update({f"{PREFIX}{name}": value for name, value in numbers.items()})
        self.due = True
        self._rank()

    def _rank(self) -> None:
        value = self.row.get(self.ranking.column)
        if value is not None and self.ranks and self.ranking.key(value) < self.best:
            self.best, self.best_step = self.ranking.key(value), int(self.row["step"])

    def stop(self, trainer: Trainer, reason: str, *, late: float | None = None) -> None:
        """End the run after this step; the first reason is the one told.

        `late` is the limit in minutes where time ran out: then nothing is logged, validated or
        ranked for the end's sake, so that the run can go on as if it had not ended here.
        """
        if self.stop_reason is None:
            self.stop_reason, self.late = reason, late
        trainer.should_stop = True

    def ends(self, trainer: Trainer) -> bool:
        """Whether this step is the run's last for good."""
        stopped = trainer.should_stop and self.late is None
        return stopped or trainer.global_step >= self.plan.total_steps

    def state_dict(self) -> dict[str, Any]:
        window = {"window": dict(self._window), "window_units": self._window_units}
        return {**window, **{name: getattr(self, name) for name in KEPT}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._window = dict(state_dict["window"])
        self._window_units = state_dict["window_units"]
        for name in KEPT:
            setattr(self, name, state_dict.get(name, getattr(self, name)))  # an older one has less


def columns(numbers: Numbers) -> Row:
    """A validation as columns of a row: `valid_loss`, and `valid/NAME` for all else."""
    others = {f"{PREFIX}{name}": n for name, n in numbers.items() if name != "loss"}
    return {"valid_loss": numbers["loss"], **others}


HISTORY_WRITER = "HistoryWriter"
"""Where checkpoints keep the log."""


class HistoryWriter(StepCallback):
    """Writes the step's row to `train_log.csv` and every logger."""

    def __init__(
        self,
        recorder: Recorder,
        history: History,
        trackers: Sequence[Tracker],
        *,
        log_every: int,
    ) -> None:
        self.recorder, self.history, self.trackers = recorder, history, trackers
        self.log_every = log_every

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0 and trainer.is_global_zero and self.recorder.before:
            self.write({"step": 0, "epoch": 0.0, **self.recorder.before})

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        due = self.recorder.due or self.recorder.ends(trainer)
        if due or trainer.global_step % self.log_every == 0:
            if trainer.is_global_zero:
                self.write(self.recorder.row)
            self.recorder.close_window()

    @property
    def state_key(self) -> str:
        return HISTORY_WRITER

    def state_dict(self) -> dict[str, Any]:
        """The log until here: a checkpoint brings its own, whatever became of the file."""
        return {"log": self.history.text()}

    def write(self, row: Row) -> None:
        """One row to the file and the loggers."""
        self.history.add(row)
        for tracker in self.trackers:
            tracker.log(row)
