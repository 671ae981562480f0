"""Validator, Sampler and Stopper: what is looked at while training, and what may end it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from graftlab.training.callbacks.base import StepCallback
from graftlab.training.callbacks.recorder import Recorder
from graftlab.training.callbacks.spec import Drawn, State, Step

if TYPE_CHECKING:
    from graftlab.training.evaluate import Evaluation
    from graftlab.training.module import AdapterModule
    from graftlab.training.observer import Observer
    from graftlab.training.samples import SampleBook
    from graftlab.training.step_plan import StepPlan
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
        beside: Callable[[int], bool] = lambda step: False,
    ) -> None:
        """`beside`: steps after which the loss is measured besides, as others are ranked there."""
        self.recorder, self.spec, self.beside = recorder, spec.validation, beside
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
        return step >= plan.total_steps or due(step, plan, **every) or self.beside(step)

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        step = trainer.global_step
        if not self.due(step):
            return
        found = self.tuned()
        loss = found.numbers["loss"]
        if self._planned(step):
            ranks = module.objective.after_validation(found.numbers, module.policy.state)
            self.recorder.validated(found, ranks=ranks)
        if step in self.observer.rungs:
            self.recorder.row["rung_loss"], self.recorder.due = loss, True
            if trainer.is_global_zero and self.recorder.ranking.is_loss:
                self.observer.reached(step, loss)


class Sampler(StepCallback):
    """Answers held-out prompts while training, and shows the replies to the callbacks."""

    def __init__(
        self,
        recorder: Recorder,
        spec: Callbacks,
        *,
        book: SampleBook,
        precision: str,
        warn: Callable[[str], None],
        states: dict[str, State],
    ) -> None:
        """`states`: what each callback remembers, by its key."""
        self.recorder, self.spec, self.book, self.warn = recorder, spec, book, warn
        self.precision, self.states = precision, states

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        samples, step = self.spec.samples, trainer.global_step
        every = {"every_epochs": samples.every_epochs, "every_steps": samples.every_steps}
        if not due(step, self.recorder.plan, **every):
            return
        reason = self.draw(step)
        if reason is not None:
            self.recorder.stop(trainer, reason)

    def draw(self, step: int) -> str | None:
        """Sample every prompt; the reason to end the run, if a callback has one."""
        repeated = self.book.draw(step)
        drawn = Drawn(
            step=step,
            per_epoch=self.recorder.plan.steps_per_epoch,
            precision=self.precision,
            rows=self.book.last(),
            repetition=repeated,
            warn=self.warn,
        )
        reasons = [
            spec.after_samples(drawn, self.states.setdefault(key, {}))
            for key, spec in sorted(self.spec.chosen.items())
        ]
        return next((reason for reason in reasons if reason is not None), None)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.book.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.book.rows = list(state_dict["rows"])


class Stopper(StepCallback):
    """Shows every step to the callbacks, keeps what they remember, and watches the time limit."""

    def __init__(
        self,
        recorder: Recorder,
        spec: Callbacks,
        *,
        max_minutes: float | None,
        warn: Callable[[str], None],
        states: dict[str, State],
    ) -> None:
        """`states`: what each callback remembers, by its key."""
        self.recorder, self.spec, self.max_minutes = recorder, spec, max_minutes
        self.warn, self.states = warn, states
        self.spent = 0.0  # seconds of earlier starts

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        reasons = self._ask(trainer.global_step)
        reason = next((reason for reason in reasons if reason is not None), None)
        late = self.max_minutes if reason is None and self._is_late() else None
        if trainer.world_size > 1:  # clocks differ; all processes must stop after the same step
            reason, late = trainer.strategy.broadcast((reason, late))
        if reason is not None:
            self.recorder.stop(trainer, reason)
        elif late is not None and trainer.global_step < self.recorder.plan.total_steps:
            self.recorder.stop(trainer, f"max_minutes={late:g} reached", late=late)

    def _ask(self, number: int) -> list[str | None]:
        """What each callback says of the step; all are asked, so that all go on watching."""
        step = Step(
            number=number,
            total=self.recorder.plan.total_steps,
            per_epoch=self.recorder.plan.steps_per_epoch,
            loss=self.recorder.step_loss,
            row=MappingProxyType(self.recorder.row),
            metrics=MappingProxyType(dict(self.recorder.step_metrics)),
            ranking=self.recorder.ranking,
            warn=self.warn,
        )
        return [
            spec.after_step(step, self.states.setdefault(key, {}))
            for key, spec in sorted(self.spec.chosen.items())
        ]

    def _is_late(self) -> bool:
        minutes = (self.spent + self.recorder.elapsed) / 60
        return self.max_minutes is not None and minutes >= self.max_minutes

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent + self.recorder.elapsed, "states": deepcopy(self.states)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent = state_dict["spent"]
        self.states.clear()  # the sampler has the same
        self.states.update(deepcopy(state_dict["states"]))


class LightningStop(StepCallback):
    """Gives a reason to an end that a callback of Lightning's has asked for."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        if trainer.should_stop and self.recorder.stop_reason is None:
            self.recorder.stop(trainer, "stopped by a callback of Lightning's")
