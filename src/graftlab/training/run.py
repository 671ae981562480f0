"""A run from specification to result; the stations of the walk, in order.

read_data       conversations -> tokens
plan_steps      tokens -> rows -> optimizer steps
open_policy     base lent, adapter attached, documents proven isolated
Fit.run         baseline, optimizer steps, checkpoints
finish          best adapter, samples, result.json
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from graftlab.adapters.peft import attach
from graftlab.adapters.targets import check_targets
from graftlab.choices import dump
from graftlab.errors import ConfigError
from graftlab.models.cache import lend
from graftlab.models.compile import compile_layers, plan_compile
from graftlab.models.probe import check_isolation
from graftlab.objectives.policy import Policy
from graftlab.text.encode import encode
from graftlab.tracking.console import say
from graftlab.tracking.folder import RunFolder, identity
from graftlab.tracking.history import History
from graftlab.tracking.result import Result
from graftlab.training.announce import announce
from graftlab.training.callbacks.recorder import Recorder
from graftlab.training.checkpoint import CheckpointStore, Saved
from graftlab.training.device import matrix_peak
from graftlab.training.finish import Finish
from graftlab.training.fit import Fit
from graftlab.training.flops import flops_per_token
from graftlab.training.memory import memory_advice
from graftlab.training.module import AdapterModule, require_same
from graftlab.training.place import Place
from graftlab.training.plan import StepPlan, plan_steps
from graftlab.training.precision import Resolved, resolve
from graftlab.training.samples import SampleBook
from graftlab.training.signals import Signals

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.tasks.train import TrainSpec
    from graftlab.text.encode import TokenSet
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.tracking.loggers import Tracker
    from graftlab.types import Conversation


@dataclass(frozen=True, slots=True)
class Data:
    """Both sets as tokens, and the conversations that are sampled from."""

    tokenizer: Tokenizer
    train: TokenSet
    valid: TokenSet | None
    prompts: list[Conversation]

    @property
    def fingerprint(self) -> str:
        return self.train.fingerprint + (self.valid.fingerprint if self.valid else "")


def execute(spec: TrainSpec, folder: RunFolder) -> Result:
    """Train `spec` in `folder`, going on from its last checkpoint if there is one.

    Raises Interrupted after a signal, and GraftlabError with the fix for what people can mend.
    """
    with Signals() as signals, memory_advice(spec):
        return _execute(spec, folder, signals)


def _execute(spec: TrainSpec, folder: RunFolder, signals: Signals) -> Result:
    started = time.perf_counter()
    resume = _claim(spec, folder)
    place = Place.settle(spec)
    precision = resolve(spec.precision, place.device)
    check_targets(spec.model.folder(), spec.lora)
    data = read_data(spec, folder, tell=place.rank == 0)
    plan = plan_steps(
        data.train,
        data.valid,
        packing=spec.packing,
        schedule=spec.schedule,
        batch_size=spec.batch_size,
        accumulate=spec.accumulate,
        epochs=spec.epochs,
        max_steps=spec.max_steps,
        seed=spec.seed,
        rank=place.rank,
        world_size=place.world_size,
    )
    with open_adapter(spec, precision, place) as adapter:
        compiled, compile_reason = _whether_to_compile(spec, plan, adapter, place)
        probe = "one document at a time: nothing to keep apart"
        if spec.packing.strategy != "none" or spec.batch_size > 1:
            probe = check_isolation(adapter.base, adapter, autocast=precision.autocast)
        if place.rank == 0:
            announce(
                spec,
                plan,
                adapter,
                data,
                precision,
                place,
                compile_reason=compile_reason,
                probe=probe,
            )
        fit = _assemble(spec, folder, data, plan, adapter, precision, place, signals)
        exit_code = 1
        try:
            setup_seconds = time.perf_counter() - started
            _train(fit, resume, compiled=compiled)
            finish = Finish(
                fit=fit, folder=folder, data=data, compiled=compiled, writes=place.rank == 0
            )
            result = finish.run(setup_seconds=setup_seconds, started=started)
            exit_code = 0
        finally:
            for tracker in fit.trackers:
                tracker.finish(exit_code)
        return result


def _whether_to_compile(
    spec: TrainSpec, plan: StepPlan, adapter: Adapter, place: Place
) -> tuple[bool, str]:
    """The decision and its reason. A resumed run decides as the whole run did: it must compute
    the same numbers.
    """
    if spec.compile == "auto" and spec.lora.dora:
        return False, "DoRA computes its norms in a way that cannot be compiled"
    passes = plan.total_steps * spec.accumulate
    return plan_compile(
        spec.compile,
        planned_steps=passes,
        tokens_per_step=plan.tokens_per_step / spec.accumulate / place.world_size,
        device=place.device,
        num_parameters=adapter.base.num_parameters,
    )


def _claim(spec: TrainSpec, folder: RunFolder) -> Saved | None:
    """The checkpoint to go on from. Raises ConfigError when the folder holds somebody's run."""
    last = CheckpointStore(folder.checkpoints).last()
    if last is not None and spec.resume is None:
        raise ConfigError(
            f"{folder.path} holds an unfinished run (step {last.step}): add resume=auto to finish "
            "it, or choose another hydra.run.dir."
        )
    folder.begin(dump(spec))
    return last


def read_data(spec: TrainSpec, folder: RunFolder, *, tell: bool = True) -> Data:
    """Conversations, checked and encoded; the log says what was recognised, dropped and refused."""
    tokenizer = spec.model.load_tokenizer()
    dataset = spec.data.load(reserved=tokenizer.reserved, rejects=folder.path / "rejects.jsonl")

    def tokens(conversations: Sequence[Conversation], name: str) -> TokenSet:
        encoded = encode(
            conversations,
            tokenizer,
            max_length=spec.packing.max_length,
            over_limit=spec.data.over_limit,
            train_turns=spec.data.train_turns,
            progress=tell,
        )
        if encoded.dropped and tell:
            say(
                f"{name}: {len(encoded.dropped)} documents are longer than "
                f"packing.max_length={spec.packing.max_length} and were dropped."
            )
        return encoded

    for note in dataset.notes if tell else ():
        say(note)
    train = tokens(dataset.train, "train")
    valid = tokens(dataset.valid, "valid") if dataset.valid else None
    return Data(tokenizer, train, valid, dataset.valid[: spec.callbacks.samples.prompts])


@contextmanager
def open_adapter(spec: TrainSpec, precision: Resolved, place: Place) -> Iterator[Adapter]:
    """The base, lent, with the adapter in it; the base goes back as it came."""
    with lend(spec.model, dtype=precision.base_dtype, device=place.device) as base:
        adapter = attach(base, spec.lora, seed=spec.seed, dtype=precision.adapter_dtype)
        base.set_checkpointing(spec.model.gradient_checkpointing)
        yield adapter


def _assemble(
    spec: TrainSpec,
    folder: RunFolder,
    data: Data,
    plan: StepPlan,
    adapter: Adapter,
    precision: Resolved,
    place: Place,
    signals: Signals,
) -> Fit:
    """Module, recorder, history, loggers and samples of this process."""
    config = dump(spec)
    fingerprints = {
        "base": adapter.base.fingerprint,
        "data": data.fingerprint,
        "configuration": identity(config),
    }
    store = CheckpointStore(folder.checkpoints)
    last = store.last()
    if last is not None:  # before its log and checkpoints are touched
        require_same(last.load()["identity"], fingerprints)
    module = AdapterModule(
        policy=Policy(adapter.base, adapter),
        objective=spec.objective,
        optimizer=spec.optimizer,
        lr=spec.lr,
        factor=partial(
            spec.schedule.factor, warmup=plan.warmup_steps, total_steps=plan.total_steps
        ),
        autocast=precision.autocast,
        seed=spec.seed,
        identity=fingerprints,
        config=config,
    )
    lengths, labels = data.train.lengths, data.train.num_labels
    recorder = Recorder(
        plan,
        peak=matrix_peak(place.device, precision.base_dtype),
        flops_per_token=flops_per_token(
            adapter.base,
            num_trainable=adapter.num_trainable,
            mean_length=float(lengths.mean()),
            labelled_share=float(labels.sum() / lengths.sum()),
        ),
    )
    history = History(folder.path / "train_log.csv")
    trackers: Sequence[Tracker] = ()
    if place.rank == 0:
        store.prune(spec.checkpoint.keep)
        history.cut_back(last.step if last else -1)
        name = spec.name or folder.path.name
        trackers = spec.logger.open(folder.path, name=name, config=config, history=history.rows)
    book = SampleBook(
        adapter,
        data.tokenizer,
        data.prompts,
        generation=spec.generation,
        autocast=precision.autocast,
    )
    return Fit(
        spec=spec,
        plan=plan,
        module=module,
        precision=precision,
        device=place.device,
        recorder=recorder,
        history=history,
        trackers=trackers,
        store=store,
        book=book,
        signals=signals,
    )


def _train(fit: Fit, resume: Saved | None, *, compiled: bool) -> None:
    """Fit, unless the checkpoint is already the run's end: then it was killed while finishing."""
    if resume is not None and fit.ended(resume):
        return
    if compiled:
        compile_layers(fit.module.policy.base)
    fit.run(resume)
