"""A run from specification to result; the steps of the walk, in order.

settle          conversations -> tokens -> rows -> optimizer steps
open_adapter    base lent, adapter attached
_prove_isolation   documents of a row do not see each other
resolve_reference  what the reference makes of the answers, where the objective asks it
Fit.run         baseline, optimizer steps, checkpoints
finish          best adapter, samples, result.json
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from graftlab.adapters.attach import attach
from graftlab.console import say
from graftlab.errors import ConfigError, Paused
from graftlab.files.paths import absolute
from graftlab.models.cache import acquire
from graftlab.models.compile import compile_layers, plan_compile
from graftlab.models.probe import check_alone, check_isolation
from graftlab.models.probe_branches import check_branches
from graftlab.objectives.policy import Policy
from graftlab.registry import dump
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.history import History
from graftlab.tracking.identity import identity
from graftlab.tracking.result import Result, forget_peak
from graftlab.training.announce import announce
from graftlab.training.callbacks.recorder import HISTORY_WRITER, Recorder
from graftlab.training.checkpoint import CheckpointStore, Saved
from graftlab.training.device import matrix_peak
from graftlab.training.drawn import draw_from_data
from graftlab.training.finish import Finish
from graftlab.training.fit import Fit
from graftlab.training.flops import attended_length, flops_per_token
from graftlab.training.memory import memory_advice
from graftlab.training.module import AdapterModule, require_same
from graftlab.training.observer import Observer
from graftlab.training.reference import resolve_reference
from graftlab.training.run_date import resolve_date
from graftlab.training.samples import Replies, SampleBook
from graftlab.training.setup import Setup, resolve_setup
from graftlab.training.signals import Signals
from graftlab.training.teacher import opened
from graftlab.training.trainer import LAUNCHED
from graftlab.training.whole import newest_whole

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base
    from graftlab.tracking.tracker import Tracker
    from graftlab.training.precision import Resolved
    from graftlab.training.process_context import ProcessContext
    from graftlab.training.spec import TrainSpec


def execute(spec: TrainSpec, folder: RunFolder, observer: Observer | None = None) -> Result:
    """Train `spec` in `folder`, going on from its last checkpoint if there is one.

    Raises Interrupted after a signal, Paused where the observer says so, and GraftlabError with
    the fix for what people can mend.
    """
    with Signals() as signals, memory_advice(spec):
        return _execute(spec, folder, signals, observer or Observer())


def _execute(spec: TrainSpec, folder: RunFolder, signals: Signals, observer: Observer) -> Result:
    started = time.perf_counter()
    resume = claim(spec, folder)
    forget_peak()
    setup = resolve_setup(spec, folder)
    with _open(setup) as (adapter, teacher):
        draw_from_data(setup, adapter, resumed=resume is not None)
        compiled, compile_reason = whether_to_compile(setup, adapter.base)
        probe = _prove_isolation(setup, adapter)
        if setup.writes:
            announce(setup, adapter, compile_reason=compile_reason, probe=probe)
            if resume is not None:
                say(f"Going on from step {resume.step} of {setup.plan.total_steps}.")
        resolve_reference(setup, adapter.base, adapter)
        policy = Policy(adapter.base, adapter, teacher)
        fit = assemble(setup, adapter, signals=signals, observer=observer, policy=policy)
        exit_code = 1
        try:
            setup_seconds = time.perf_counter() - started
            if setup.writes:
                folder.reopen()  # not before: what a start refuses leaves the run as it was
            _train(fit, resume, compiled=compiled)
            finish = Finish(
                fit=fit, folder=folder, data=setup.data, compiled=compiled, writes=setup.writes
            )
            result = finish.run(setup_seconds=setup_seconds, started=started)
            exit_code = 0
        except Paused:
            exit_code = 0
            for tracker in fit.trackers:
                tracker.paused()
            raise
        finally:
            for tracker in fit.trackers:
                tracker.finish(exit_code)
        return result


@contextmanager
def _open(setup: Setup) -> Iterator[tuple[Adapter, Policy | None]]:
    """Base and adapter, and the teacher where the objective asks one."""
    spec, precision, place = setup.spec, setup.precision, setup.place
    with (
        opened(spec.objective, precision=precision, device=place.device) as teacher,
        open_adapter(spec, precision, place) as adapter,
    ):
        yield adapter, teacher


def _prove_isolation(setup: Setup, adapter: Adapter) -> str:
    """What the probes found, for the log. Raises LeakError when packed documents, or branches of
    one, see each other.
    """
    base, autocast = adapter.base, setup.precision.autocast
    one_by_one = setup.spec.packing.strategy == "none" and setup.spec.batch_size == 1
    check = check_alone if one_by_one else check_isolation
    found = [check(base, adapter, autocast=autocast)]
    if setup.plan.branched:
        found.append(check_branches(base, adapter, autocast=autocast))
    return "; ".join(found)


def whether_to_compile(setup: Setup, base: Base) -> tuple[bool, str]:
    """The decision and its reason. A resumed run decides as the whole run did: it must compute
    the same numbers.
    """
    spec, plan, place = setup.spec, setup.plan, setup.place
    if spec.compile != "off" and spec.model.compile_obstacle is not None:
        return False, spec.model.compile_obstacle
    if spec.compile == "auto" and spec.lora.dora:
        return False, "DoRA computes its norms in a way that cannot be compiled"
    passes = plan.total_steps * spec.accumulate
    return plan_compile(
        spec.compile,
        planned_steps=passes,
        tokens_per_step=plan.tokens_per_step / spec.accumulate / place.world_size,
        device=place.device,
        num_parameters=base.num_parameters,
    )


def claim(spec: TrainSpec, folder: RunFolder) -> Saved | None:
    """The checkpoint to go on from. Raises ConfigError when the folder holds somebody's run, and
    ResumeError where it has checkpoints and none of them is whole.
    """
    store = CheckpointStore(folder.checkpoints)
    last = store.last()
    if last is not None and spec.resume is None:
        raise ConfigError(
            f"{folder.path} holds an unfinished run (step {last.step}): add resume=auto to finish "
            "it, or choose another hydra.run.dir."
        )
    if last is not None:
        tell = LAUNCHED not in os.environ  # else the process that started this one has said it
        last = newest_whole(store, identity(dump(spec), paths=False), tell=tell)
    if last is not None:
        folder.require_same(dump(spec), begun=last.load(mapped=True)["run"])
    resolve_date(spec, folder)
    folder.begin(dump(spec))
    return last


@contextmanager
def open_adapter(spec: TrainSpec, precision: Resolved, place: ProcessContext) -> Iterator[Adapter]:
    """The base, lent, with the adapter in it; the base goes back as it came."""
    stored = precision.stored(trained=spec.lora.full)
    with acquire(spec.model, dtype=stored, device=place.device) as base:
        adapter = attach(base, spec.lora, seed=spec.seed, dtype=precision.adapter_dtype)
        base.set_checkpointing(spec.model.gradient_checkpointing)
        yield adapter


def assemble(
    setup: Setup,
    adapter: Adapter,
    *,
    signals: Signals,
    observer: Observer,
    policy: Policy | None = None,
    replies: Replies | None = None,
) -> Fit:
    """Module, recorder, history, loggers and samples of this process.

    `policy` is what the objective asks (default: base and adapter), `replies` how samples are
    drawn.
    """
    spec, folder = setup.spec, setup.folder
    replies = replies or _replies(setup, adapter)
    module = _module(setup, policy or Policy(adapter.base, adapter))
    store = CheckpointStore(folder.checkpoints)
    last = store.last()
    history = History(folder.path / "train_log.csv")
    if last is not None:  # before its log and checkpoints are touched
        content = last.load()
        require_same(content["identity"], module.identity)
        history.restore(content["callbacks"][HISTORY_WRITER]["log"])
    trackers: Sequence[Tracker] = ()
    if setup.writes:
        folder.mend_config(module.config)
        store.prune(spec.checkpoint.keep)
        history.cut_back(last.step if last else -1)
        name = spec.name or folder.path.name
        trackers = spec.logger.open(
            folder.path, name=name, config=module.config, history=history.rows
        )
    book = SampleBook(
        adapter,
        setup.data.tokenizer,
        setup.data.prompts,
        generation=spec.generation,
        replies=replies,
    )
    return Fit(
        spec=spec,
        plan=setup.plan,
        module=module,
        precision=setup.precision,
        device=setup.place.device,
        recorder=_recorder(setup, adapter, policy.teacher if policy else None),
        history=history,
        trackers=trackers,
        store=store,
        book=book,
        measurers=setup.data.measurers,
        signals=signals,
        observer=observer,
    )


def _replies(setup: Setup, adapter: Adapter) -> Replies:
    """How samples are drawn; what the base has answered an earlier job of this process is kept."""
    asked = [setup.data.fingerprint, setup.spec.generation, setup.precision.name]
    known = adapter.base.answers.setdefault(f"replies {asked}", {})
    return Replies(setup.precision.autocast, known)


def _module(setup: Setup, policy: Policy) -> AdapterModule:
    """The Lightning module; a checkpoint of it names base, data and configuration."""
    spec, plan = setup.spec, setup.plan
    config = absolute(dump(spec))
    return AdapterModule(
        policy=policy,
        objective=spec.objective,
        optimizer=spec.optimizer,
        lr=spec.lr,
        factor=partial(
            spec.schedule.factor, warmup=plan.warmup_steps, total_steps=plan.total_steps
        ),
        autocast=setup.precision.autocast,
        seed=spec.seed,
        identity={
            "base": policy.base.fingerprint,
            "data": setup.data.fingerprint,
            "configuration": identity(config, paths=False),
        },
        config=config,
    )


def _recorder(setup: Setup, adapter: Adapter, teacher: Policy | None) -> Recorder:
    """Counts tokens and time, against what the device could do at its best."""
    lengths, labels = setup.data.train.lengths, setup.data.train.num_labels
    frozen = adapter.base if setup.spec.objective.asks_base() else None
    return Recorder(
        setup.plan,
        peak=matrix_peak(setup.place.device, setup.precision.base_dtype),
        flops_per_token=flops_per_token(
            adapter.base,
            num_trainable=adapter.num_trainable,
            mean_length=attended_length(setup.data.train),
            labelled_share=float(labels.sum() / lengths.sum()),
            teacher=teacher.base if teacher else frozen,
        ),
        ranking=setup.spec.ranking,
    )


def _train(fit: Fit, resume: Saved | None, *, compiled: bool) -> None:
    """Fit, unless the checkpoint is already the run's end: then it was killed while finishing."""
    if resume is not None and fit.ended(resume):
        return
    if compiled:
        policy = fit.module.policy
        for asked in (policy, policy.teacher):
            if asked is not None:
                compile_layers(asked.base)
    fit.run(resume)
