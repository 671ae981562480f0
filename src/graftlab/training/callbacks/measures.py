"""Measures: replies to held-out prompts, measured while training by callbacks of the group."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer

from graftlab.registry import dump
from graftlab.training.callbacks.base import StepCallback
from graftlab.training.callbacks.recorder import Recorder
from graftlab.training.callbacks.watchers import due

if TYPE_CHECKING:
    from graftlab.training.callbacks.spec import Measurer
    from graftlab.training.evaluate import Numbers
    from graftlab.training.module import AdapterModule
    from graftlab.training.observer import Observer
    from graftlab.training.samples import SampleBook
    from graftlab.training.watch import Callbacks


class Measures(StepCallback):
    """Measures the base before the first step, then the adapter when due and at the last step."""

    def __init__(
        self,
        recorder: Recorder,
        spec: Callbacks,
        measurers: Mapping[str, Measurer],
        *,
        book: SampleBook,
        known: str,
        observer: Observer,
    ) -> None:
        """`measurers` by the key of their callback; `known`: what else decides the base's replies,
        which are measured once for all jobs of this process that share it.
        """
        self.recorder, self.spec, self.measurers = recorder, spec, measurers
        self.book, self.known, self.observer = book, known, observer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step > 0:
            return
        adapter = self.book.adapter
        for key, measurer in self.measurers.items():
            asked = json.dumps(dump(self.spec.chosen[key]), sort_keys=True)
            name = f"measures {key} {asked} {self.known}"
            if name not in adapter.base.answers:
                with adapter.disabled():
                    adapter.base.answers[name] = self._numbers(trainer, measurer)
            self.recorder.evaluated_base(adapter.base.answers[name])

    def ranks(self, step: int) -> bool:
        """Whether what steps are ranked by is measured after this one, by the run's own plan."""
        return any(self._ranking(key) and self._planned(key, step) for key in self.measurers)

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        step, ranking = trainer.global_step, self.recorder.ranking
        for key, measurer in self.measurers.items():
            planned = self._planned(key, step)
            rung = step in self.observer.rungs and self._ranking(key)
            if not planned and not rung:
                continue
            numbers = self._numbers(trainer, measurer)
            if planned:
                self.recorder.evaluated(numbers)
            if rung and (value := numbers.get(ranking.by)) is not None:
                self.recorder.row[f"rung/{ranking.by}"], self.recorder.due = value, True
                if trainer.is_global_zero:
                    self.observer.reached(step, ranking.key(value))

    def _ranking(self, key: str) -> bool:
        return self.recorder.ranking.by in self.spec.chosen[key].measures()

    def _planned(self, key: str, step: int) -> bool:
        plan, measurer = self.recorder.plan, self.measurers[key]
        every = {"every_epochs": measurer.every_epochs, "every_steps": measurer.every_steps}
        return step >= plan.total_steps or due(step, plan, **every)

    def _numbers(self, trainer: Trainer, measurer: Measurer) -> Numbers:
        base = self.book.adapter.base
        with self.book.replies.context(), base.answering():
            found = measurer.measure(base)
        if trainer.world_size > 1:  # rounding may differ; all must rank alike
            found = trainer.strategy.broadcast(found)
        return found
