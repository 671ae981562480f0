"""Validator, Sampler and Stopper: what is looked at while training, and what may end it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from graftlab.training.callbacks.base import StepCallback
from graftlab.training.callbacks.recorder import Recorder

if TYPE_CHECKING:
    from graftlab.training.evaluate import Evaluation
    from graftlab.training.module import AdapterModule
    from graftlab.training.observer import Observer
    from graftlab.training.plan import StepPlan
    from graftlab.training.samples import SampleBook
    from graftlab.training.watch import Callbacks


def due(step: int, plan: StepPlan, *, every_epochs: int | None, every_steps: int | None) -> bool:
    """Whether something that happens every N epochs or steps happens after this step."""
    if every_steps is not None and step % every_steps == 0:
        return True
    return every_epochs is not None and step % (every_epochs * plan.steps_per_epoch) == 0


class Validator(StepCallback):
    """Measures the base before the first step, then the adapter when due and at the last step."""

    def __init__(
        self,
        recorder: Recorder,
        spec: Callbacks,
        *,
        base: Callable[[], Evaluation],
        tuned: Callable[[], Evaluation],
        observer: Observer,
    ) -> None:
        self.recorder, self.spec = recorder, spec.validation
        self.base, self.tuned, self.observer = base, tuned, observer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            self.recorder.measured(self.base())

    def due(self, step: int) -> bool:
        """Whether the loss is measured after this step."""
        return step in self.observer.rungs or self._planned(step)

    def _planned(self, step: int) -> bool:
        """Whether the run measures it by itself, whoever looks on."""
        plan, spec = self.recorder.plan, self.spec
        every = {"every_epochs": spec.every_epochs, "every_steps": spec.every_steps}
        return step >= plan.total_steps or due(step, plan, **every)

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        step = trainer.global_step
        if not self.due(step):
            return
        found = self.tuned()
        loss = found.numbers["loss"]
        if self._planned(step):
            self.recorder.validated(found)
        if step in self.observer.rungs:
            self.recorder.row["rung_loss"], self.recorder.due = loss, True
            if trainer.is_global_zero:
                self.observer.reached(step, loss)


class Sampler(StepCallback):
    """Answers held-out prompts while training; warns of degenerate text, or stops at it."""

    def __init__(
        self,
        recorder: Recorder,
        spec: Callbacks,
        *,
        book: SampleBook,
        precision: str,
        warn: Callable[[str], None],
    ) -> None:
        self.recorder, self.spec, self.book, self.warn = recorder, spec, book, warn
        self.precision = precision
        self._told_of_base = False

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        samples, step = self.spec.samples, trainer.global_step
        every = {"every_epochs": samples.every_epochs, "every_steps": samples.every_steps}
        if not due(step, self.recorder.plan, **every):
            return
        complaint = self.draw(step)
        if complaint is not None and self.spec.repetition and self.spec.repetition.stop:
            self.recorder.stop(trainer, complaint)

    def draw(self, step: int) -> str | None:
        """Sample every prompt; the complaint, already told, if training made a reply repeat itself.

        Where the base's own reply to the prompt does so too, that is said once, and is no
        complaint.
        """
        repeated, alarm = self.book.draw(step), self.spec.repetition
        if alarm is None:
            return None
        loops = [pair for pair in repeated if pair[1] > alarm.threshold]
        learned = [(base, adapter) for base, adapter in loops if base <= alarm.threshold]
        if learned:
            base, adapter = max(learned, key=lambda pair: pair[1])
            complaint = (
                f"step {step}: {adapter:.0%} of a sampled reply repeats itself "
                f"(of the base's own reply: {base:.0%})"
            )
            self.warn(f"{complaint}. {self._advice(step)}")
            return complaint
        if loops and not self._told_of_base:
            self._told_of_base = True
            self.warn(
                f"step {step}: {len(loops)} of {len(repeated)} sampled replies repeat themselves, "
                "and the base's own replies to the same prompts do too: no fault of the adapter."
            )
        return None

    def _advice(self, step: int) -> str:
        """What helps; plain bf16 adapters degenerate, other precisions have no part in it."""
        if step < self.recorder.plan.steps_per_epoch:
            return "Before the first epoch has ended that may pass with training; else lower lr."
        if self.precision == "bf16":
            return "Lower lr, train for fewer epochs, or use precision=bf16-mixed."
        return "Lower lr, or train for fewer epochs."

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.book.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.book.rows = list(state_dict["rows"])


class Stopper(StepCallback):
    """Early stopping, plateau of the smoothed training loss, and the time limit."""

    def __init__(self, recorder: Recorder, spec: Callbacks, *, max_minutes: float | None) -> None:
        self.recorder, self.spec, self.max_minutes = recorder, spec, max_minutes
        self.spent = 0.0  # seconds of earlier starts
        self.best_valid, self.misses = float("inf"), 0
        self.smooth: float | None = None
        self.best_smooth, self.best_smooth_step = float("inf"), 0

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        reasons = (self._early(), self._plateau(trainer.global_step))
        reason = next((reason for reason in reasons if reason is not None), None)
        late = self.max_minutes if reason is None and self._is_late() else None
        if trainer.world_size > 1:  # clocks differ; all processes must stop after the same step
            reason, late = trainer.strategy.broadcast((reason, late))
        if reason is not None:
            self.recorder.stop(trainer, reason)
        elif late is not None and trainer.global_step < self.recorder.plan.total_steps:
            self.recorder.stop(trainer, f"max_minutes={late:g} reached", late=late)

    def _early(self) -> str | None:
        spec, loss = self.spec.early_stopping, self.recorder.row.get("valid_loss")
        if spec is None or loss is None:
            return None
        if loss < self.best_valid - spec.min_delta:
            self.best_valid, self.misses = loss, 0
        else:
            self.misses += 1
        if self.misses < spec.patience:
            return None
        return f"early stopping: no better validation loss in {self.misses} validations"

    def _plateau(self, step: int) -> str | None:
        spec = self.spec.plateau
        if spec is None:
            return None
        loss, past = self.recorder.step_loss, self.smooth
        self.smooth = loss if past is None else spec.smoothing * past + (1 - spec.smoothing) * loss
        if self.smooth < self.best_smooth - spec.min_delta:
            self.best_smooth, self.best_smooth_step = self.smooth, step
        if step < spec.min_steps or step - self.best_smooth_step < spec.patience:
            return None
        return f"plateau: the training loss has not fallen for {spec.patience} steps"

    def _is_late(self) -> bool:
        minutes = (self.spent + self.recorder.elapsed) / 60
        return self.max_minutes is not None and minutes >= self.max_minutes

    def state_dict(self) -> dict[str, Any]:
        return {
            "spent": self.spent + self.recorder.elapsed,
            "valid": [self.best_valid, self.misses],
            "smooth": [self.smooth, self.best_smooth, self.best_smooth_step],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent = state_dict["spent"]
        self.best_valid, self.misses = state_dict["valid"]
        self.smooth, self.best_smooth, self.best_smooth_step = state_dict["smooth"]
