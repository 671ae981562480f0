"""One training run, from prepared parts to the last checkpoint."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from graftlab.console import say
from graftlab.errors import NonFiniteError
from graftlab.files.checksums import checksum_of
from graftlab.models.finite import describe_base
from graftlab.objectives.policy import Policy
from graftlab.packing.loader import PackedLoader
from graftlab.tracking.folder import is_longer
from graftlab.training.callbacks.checkpointer import Checkpointer
from graftlab.training.callbacks.epochs import EpochWriters
from graftlab.training.callbacks.measures import Measures
from graftlab.training.callbacks.progress import ObserverBridge, ProgressBar
from graftlab.training.callbacks.recorder import HistoryWriter, Recorder
from graftlab.training.callbacks.watchers import LightningStop, Sampler, Stopper, Validator
from graftlab.training.evaluate import Evaluation, validate

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from graftlab.adapters.base import CheckpointWriter
    from graftlab.tracking.history import History
    from graftlab.tracking.tracker import Tracker
    from graftlab.training.callbacks.spec import Measurer, State
    from graftlab.training.checkpoint import CheckpointStore, Saved
    from graftlab.training.module import AdapterModule
    from graftlab.training.observer import Observer
    from graftlab.training.precision import Resolved
    from graftlab.training.samples import SampleBook
    from graftlab.training.signals import Signals
    from graftlab.training.spec import TrainSpec
    from graftlab.training.step_plan import StepPlan


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
    measurers: Mapping[str, Measurer]
    """What measures replies, by the key of its callback."""
    signals: Signals
    observer: Observer
    sampler: Sampler = field(init=False)
    states: dict[str, State] = field(default_factory=dict)
    """What each callback of the group remembers, by its key."""
    between: Callable[[str, int, int], None] = lambda what, done, total: None
    """Told of work that is no step: what it is, how much is done, out of how much."""

    def __post_init__(self) -> None:
        self.sampler = Sampler(
            self.recorder,
            self.spec.callbacks,
            book=self.book,
            precision=self.precision.name,
            warn=say,
            states=self.states,
        )

    def run(self, resume: Saved | None) -> None:
        """Train to the last step, going on from `resume` if given.

        Raises Interrupted after a signal, Paused where the observer says so, NonFiniteError or
        ResumeError.
        """
        quiet_lightning()
        self.observer.starts(
            total_steps=self.plan.total_steps,
            steps_per_epoch=self.plan.steps_per_epoch,
            step=resume.step if resume else 0,
        )
        bar = ProgressBar(self.recorder, done=resume.step if resume else 0)
        self.between = bar.between
        self.book.on_reply = partial(bar.between, "sample")
        trainer = self.spec.trainer.build(
            device=self.device,
            precision=self.precision,
            accumulate=self.spec.accumulate,
            max_steps=self.plan.total_steps,
            callbacks=[
                self.signals,
                *self.callbacks(base=self.base_numbers, tuned=self.tuned_numbers),
                *([bar] if self.spec.callbacks.progress else []),
            ],
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
        except NonFiniteError as error:
            raise self.diverged(error) from error
        finally:
            self.signals.stepping = False
            bar.close()

    def callbacks(
        self, *, base: Callable[[], Evaluation], tuned: Callable[[], Evaluation]
    ) -> list[Any]:
        """What happens after every step, in order; `base` and `tuned` validate."""
        spec, recorder, watched = self.spec, self.recorder, self.spec.callbacks
        callbacks: list[Any] = [recorder]
        measures = Measures(
            recorder,
            watched,
            self.measurers,
            book=self.book,
            known=f"{self.module.identity['data']} {self.precision.name} {spec.generation}",
            observer=self.observer,
        )
        if self.plan.valid is not None:
            callbacks.append(
                Validator(
                    recorder,
                    watched,
                    base=base,
                    tuned=tuned,
                    observer=self.observer,
                    beside=measures.ranks,
                )
            )
        callbacks += [
            *([measures] if self.measurers else []),
            self.sampler,
            Stopper(recorder, watched, max_minutes=spec.max_minutes, warn=say, states=self.states),
            *self._of_lightning(),
            HistoryWriter(recorder, self.history, self.trackers, log_every=spec.trainer.log_every),
            ObserverBridge(recorder, self.observer),
            EpochWriters(recorder, spec.checkpoint, self.history, self.writers),
            Checkpointer(
                recorder,
                spec.checkpoint,
                self.store,
                self.history,
                self.signals,
                observer=self.observer,
            ),
        ]
        return callbacks

    def _of_lightning(self) -> list[Callback]:
        """Callbacks of Lightning's that the group brings, and what tells why one ended the run."""
        chosen = [spec for _, spec in sorted(self.spec.callbacks.chosen.items())]
        found = [own for spec in chosen if (own := spec.lightning()) is not None]
        return [*found, LightningStop(self.recorder)] if found else []

    def diverged(self, error: NonFiniteError) -> NonFiniteError:
        """The same error, with what was looked at: the base's own weights, and the checkpoints."""
        base = self.module.adapter.base
        damaged = describe_base(base)
        cause = f" {base.name}: {damaged}" if damaged else ""
        return NonFiniteError(f"{error}{cause} {self.store.good()}")

    def at_strength(self, factor: float) -> Evaluation:
        """Validation with the adapter that many times as strong; by each process, of all rows.

        For when training is over: nothing of Lightning's is asked, and the adapter may be detached.
        """
        valid, adapter = self.plan.valid, self.module.adapter
        assert valid is not None
        policy = Policy(adapter.base, adapter, self.module.policy.teacher)
        here = nullcontext() if adapter.base.adapter is adapter else adapter.mounted()
        with here, adapter.scaled(factor), torch.compiler.set_stance("force_eager"):
            return validate(
                policy,
                PackedLoader(valid.tokens, valid.rows, batch_size=valid.batch_size, seed=None),
                self.spec.objective,
                autocast=self.precision.autocast,
                device=self.device,
            )

    def tuned_numbers(self) -> Evaluation:
        """Validation with the adapter as it is, over all processes."""
        return self._numbers(self.module.policy)

    def _numbers(self, policy: Policy) -> Evaluation:
        assert self.plan.valid is not None
        trainer = self.module.trainer
        several = trainer.world_size > 1
        return validate(
            policy,
            self.plan.valid,
            self.spec.objective,
            autocast=self.precision.autocast,
            device=self.device,
            reduce=partial(trainer.strategy.reduce, reduce_op="sum") if several else None,
            on_batch=partial(self.between, "validation"),
        )

    def base_numbers(self) -> Evaluation:
        """Validation of the base alone, measured once for all jobs of this process that share it.

        Eagerly, as one pass is not worth another compilation.
        """
        assert self.plan.valid is not None
        spec, adapter = self.spec, self.module.adapter
        answers, tokens = adapter.base.answers, self.plan.valid.tokens
        reference = None if tokens.reference is None else checksum_of(tokens.reference.tobytes())
        asked = [tokens.fingerprint, spec.packing, spec.batch_size, reference]
        key = f"validation {asked} {self.precision.name} {spec.objective}"
        if key not in answers:
            alone = Policy(adapter.base, None, self.module.policy.teacher)
            with adapter.disabled(), torch.compiler.set_stance("force_eager"):
                answers[key] = self._numbers(alone)
        found: Evaluation = answers[key]
        return found

    def ended(self, saved: Saved) -> bool:
        """Whether the run this checkpoint is of had taken its last step; one that was out of time
        has not where it has more now.
        """
        state = saved.load()["callbacks"][self.recorder.state_key]
        stopped = state["stop_reason"] is not None
        if stopped and is_longer(self.spec.max_minutes, state.get("late")):
            stopped = False
        return saved.step >= self.plan.total_steps or stopped

    def restore(self, saved: Saved) -> None:
        """Adapter, recorder and samples as they were when `saved` was written."""
        content = saved.load()
        self.module.on_load_checkpoint(content)
        for callback in (self.recorder, self.sampler):
            callback.load_state_dict(content["callbacks"][callback.state_key])

    def restore_adapter(self, saved: Saved) -> None:
        """The adapter's weights of `saved`."""
        self.module.adapter.load_state_dict(saved.load()["adapter"])

    @property
    def writers(self) -> Sequence[CheckpointWriter]:
        """What writes checkpoints of another make beside ours."""
        return self.module.adapter.checkpoint_writers(self.store.folder)


def quiet_lightning() -> None:
    """Lightning's own start-up lines repeat what graftlab has said already."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
