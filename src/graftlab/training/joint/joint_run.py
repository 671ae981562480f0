"""One run's place in a joint run: its adapter, and everything that a run alone would have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.errors import GraftlabError, Interrupted, NonFiniteError, Paused
from graftlab.files.disk import disk_errors_explained
from graftlab.training.callbacks.watchers import Validator
from graftlab.training.finish import Finish

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.adapters.base import Adapter
    from graftlab.tracking.result import Result
    from graftlab.training.checkpoint import Saved
    from graftlab.training.evaluate import Evaluation
    from graftlab.training.fit import Fit
    from graftlab.training.joint.groups import JointJob
    from graftlab.training.joint.stack import SlicePolicy
    from graftlab.training.joint.trainer_shim import TrainerShim
    from graftlab.training.setup import Setup
    from graftlab.types import Batch


@dataclass(kw_only=True, slots=True, eq=False)
class JointRun:
    """The parts of one run; `index` is its job's."""

    index: int
    job: JointJob
    setup: Setup
    fit: Fit
    adapter: Adapter
    policy: SlicePolicy
    shim: TrainerShim
    resumed: Saved | None
    began: float
    """When (`time.perf_counter`) setting it up began."""
    setup_seconds: float = field(init=False, default=0.0)
    validator: Validator | None = field(init=False, default=None)
    error: Exception | None = field(init=False, default=None)
    """Why it leaves without a result."""
    closed: bool = field(init=False, default=False)

    @property
    def step(self) -> int:
        return self.shim.global_step

    @property
    def done(self) -> bool:
        """Whether it took its last step, here or, if it was killed while finishing, before."""
        return self.shim.ended

    @property
    def paused(self) -> bool:
        return isinstance(self.error, Paused)

    def start(
        self, *, base: Callable[[], Evaluation], tuned: Callable[[JointRun], Evaluation]
    ) -> None:
        """Go on from the checkpoint, if any; `base` and `tuned` validate."""
        shim: Any = self.shim
        plan = self.setup.plan
        shim.callbacks = self.fit.callbacks(base=base, tuned=lambda: tuned(self))
        self.validator = next((c for c in shim.callbacks if isinstance(c, Validator)), None)
        if self.resumed is not None:
            shim.load_checkpoint(self.resumed.load())
            shim.should_stop = self.fit.ended(self.resumed)
            if shim.ended:
                return
        self.job.observer.starts(
            total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch, step=self.step
        )
        for callback in shim.callbacks:
            callback.on_train_start(shim, self.fit.module)

    def validates(self) -> bool:
        """Whether the validation loss is measured after the step that was just taken."""
        return self.validator is not None and self.validator.due(self.step)

    @contextmanager
    def trying(self) -> Iterator[None]:
        """What ends this run inside ends no other: it is kept as `error`."""
        try:
            with disk_errors_explained("What it had saved before is whole; the same line goes on."):
                yield
        except NonFiniteError as error:
            self.error = self.fit.diverged(error)
        except (GraftlabError, Paused, Interrupted) as error:
            self.error = error

    def begin(self, batch: Batch) -> None:
        """Before the pass: the clock, and the dropout masks of this micro-batch."""
        shim: Any = self.shim
        self.fit.recorder.go_on()
        self.fit.recorder.on_train_batch_start(shim, self.fit.module, batch, 0)
        self.fit.module.begin(batch)

    def loss(self, batch: Batch) -> Tensor:
        """This micro-batch's part of the step's loss, as Lightning scales it."""
        return self.fit.module.score(batch) / self.shim.accumulate_grad_batches

    def measure(self, share: float) -> None:
        """The step's row, in which this run is counted `share` of the step's time."""
        shim: Any = self.shim
        self.fit.recorder.share = share
        self.fit.recorder.after_step(shim, self.fit.module)

    def finish_step(self) -> None:
        """What follows a step but its row and its checkpoint: validation, samples, logs.

        Raises GraftlabError such as NonFiniteError.
        """
        shim: Any = self.shim
        for callback in shim.callbacks[1:-1]:
            callback.after_step(shim, self.fit.module)

    def save(self) -> None:
        """The step's checkpoint, if one is due; raises Paused or Interrupted behind it."""
        shim: Any = self.shim
        shim.callbacks[-1].after_step(shim, self.fit.module)

    def wait(self) -> None:
        """Others catch up first: its own time stands still."""
        self.fit.recorder.stand()

    def interrupt(self, number: int) -> None:
        """A signal ends all while this run sits out: what it has trained is saved first."""
        last = self.fit.store.last()
        if self.step > (last.step if last else 0):
            with self.trying():
                self.save()
        else:
            message = f"stopped before step {self.step + 1}; resume=auto goes on."
            self.error = Interrupted(message, 128 + number)

    def finish(self) -> Result:
        """Adapter folders, samples and the result, when the adapter is in no stack any more."""
        finish = Finish(
            fit=self.fit,
            folder=self.job.folder,
            data=self.setup.data,
            compiled=False,
            writes=True,
            shows=False,
        )
        result = finish.run(setup_seconds=self.setup_seconds, started=self.began)
        self.close(0)
        return result

    def close(self, exit_code: int) -> None:
        """Close the loggers, once."""
        if not self.closed:
            self.closed = True
            for tracker in self.fit.trackers:
                if self.paused:
                    tracker.paused()
                tracker.finish(exit_code)
