"""One training run, from prepared parts to the last checkpoint."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from graftlab.errors import GraftlabError
from graftlab.tracking.console import say
from graftlab.training.callbacks.checkpointer import Checkpointer, Signals
from graftlab.training.callbacks.progress import ProgressBar
from graftlab.training.callbacks.recorder import Recorder, Scribe
from graftlab.training.callbacks.watchers import Sampler, Stopper, Validator
from graftlab.training.evaluate import validation_loss

if TYPE_CHECKING:
    from graftlab.tasks.train import TrainSpec
    from graftlab.tracking.history import History
    from graftlab.tracking.loggers import Tracker
    from graftlab.training.checkpoint import CheckpointStore, Saved
    from graftlab.training.module import AdapterModule
    from graftlab.training.plan import StepPlan
    from graftlab.training.precision import Resolved
    from graftlab.training.samples import SampleBook


@dataclass(kw_only=True, slots=True)
class Fit:
    """The parts of a run that its callbacks share."""

    spec: TrainSpec
    plan: StepPlan
    module: AdapterModule
    precision: Resolved
    device: torch.device
    recorder: Recorder
    history: History
    trackers: Sequence[Tracker]
    store: CheckpointStore
    book: SampleBook
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.recorder, self.spec.callbacks, book=self.book, warn=say)

    def run(self, resume: Saved | None) -> None:
        """Train to the last step, going on from `resume` if given.

        Raises Interrupted after a signal, NonFiniteError, ResumeError, or GraftlabError with the
        next thing to change when memory runs out.
        """
        quiet_lightning()
        signals = Signals()
        trainer = self.spec.trainer.build(
            device=self.device,
            precision=self.precision,
            accumulate=self.spec.accumulate,
            max_steps=self.plan.total_steps,
            callbacks=self._callbacks(signals),
        )
        try:
            with warnings.catch_warnings():
                # Lightning counsels loader workers and a validation loop; this run wants neither.
                warnings.filterwarnings("ignore", module="lightning")
                trainer.fit(
                    self.module,
                    train_dataloaders=self.plan.train,
                    ckpt_path=resume.path if resume else None,
                    weights_only=True,
                )
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise GraftlabError(_memory_advice(self.spec)) from error

    def _callbacks(self, signals: Signals) -> list[Any]:
        spec, recorder, watched = self.spec, self.recorder, self.spec.callbacks
        callbacks: list[Any] = [recorder]
        if self.plan.valid is not None:
            callbacks.append(
                Validator(recorder, watched, base=self.base_loss, tuned=self.tuned_loss)
            )
        callbacks += [
            self.sampler,
            Stopper(recorder, watched, max_minutes=spec.max_minutes),
            signals,
            Scribe(recorder, self.history, self.trackers, log_every=spec.trainer.log_every),
            Checkpointer(recorder, spec.checkpoint, self.store, self.history, signals),
        ]
        return [*callbacks, ProgressBar(recorder)] if watched.progress else callbacks

    def tuned_loss(self) -> float:
        """The validation loss with the adapter as it is, over all processes."""
        assert self.plan.valid is not None
        trainer = self.module.trainer
        several = trainer.world_size > 1
        return validation_loss(
            self.module.policy,
            self.plan.valid,
            autocast=self.precision.autocast,
            device=self.device,
            reduce=partial(trainer.strategy.reduce, reduce_op="sum") if several else None,
        )

    def base_loss(self) -> float:
        """The base's own validation loss; eagerly, as one pass is not worth another compilation."""
        with self.module.adapter.disabled(), torch.compiler.set_stance("force_eager"):
            return self.tuned_loss()

    def ended(self, saved: Saved) -> bool:
        """Whether the run this checkpoint is of had taken its last step."""
        state = saved.load()["callbacks"][self.recorder.state_key]
        return saved.step >= self.plan.total_steps or state["stop_reason"] is not None

    def restore(self, saved: Saved) -> None:
        """Adapter, recorder and samples as they were when `saved` was written."""
        content = saved.load()
        self.module.on_load_checkpoint(content)
        for callback in (self.recorder, self.sampler):
            callback.load_state_dict(content["callbacks"][callback.state_key])

    def restore_adapter(self, saved: Saved) -> None:
        """The adapter's weights of `saved`."""
        self.module.adapter.load_state_dict(saved.load()["adapter"])


def quiet_lightning() -> None:
    """Lightning's own start-up lines repeat what graftlab has said already."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.propagate = False


def _out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in text
        or "out of memory" in text
    )


def _memory_advice(spec: TrainSpec) -> str:
    """The next thing to change, cheapest first."""
    if spec.batch_size > 1:
        half = spec.batch_size // 2
        fix = (
            f"batch_size={half} accumulate={spec.accumulate * spec.batch_size // half} "
            "(the same update in smaller pieces)"
        )
    elif not spec.model.gradient_checkpointing:
        fix = "model.gradient_checkpointing=true (the same update, about a third slower)"
    elif spec.packing.max_length > 1024:
        fix = f"packing.max_length={spec.packing.max_length // 2} (longer documents are dropped)"
    else:
        fix = f"lora.rank={max(1, spec.lora.rank // 2)}, or a smaller model"
    return f"Out of memory. Try next: {fix}. The last checkpoint is good."
