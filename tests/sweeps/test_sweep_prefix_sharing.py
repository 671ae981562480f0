"""Jobs that share a trunk: where they part, what it saves, and that nobody can tell afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from chats import chats
from graftlab.adapters.lora import Lora
from graftlab.data.jsonl import JsonlData
from graftlab.errors import GraftlabError, ResumeError
from graftlab.generation.sampling import Generation
from graftlab.models.hf import HFModel
from graftlab.objectives.sft import SFT
from graftlab.packing.plan import Packing
from graftlab.registry import dump
from graftlab.sweeps.prefix_sharing import (
    BranchPoint,
    Length,
    branch,
    branch_file,
    branch_step,
    keep_branch,
    plan_line,
    plan_trunks,
)
from graftlab.sweeps.step_counts import lengths_apart, lengths_of
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.identity import identity
from graftlab.tracking.loggers import Loggers
from graftlab.tracking.tensorboard import TensorBoardLogs
from graftlab.tracking.wandb import WandbLogs
from graftlab.training.callbacks.early_stopping import EarlyStopping
from graftlab.training.checkpoint import Checkpointing, CheckpointStore
from graftlab.training.evaluate import Evaluation
from graftlab.training.fit import Fit
from graftlab.training.observer import Observer
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.precision import Precision
from graftlab.training.schedule import Schedule
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from left_behind import left_behind
from wandb_files import history

WSD = Schedule(shape="wsd", warmup_steps=2, decay_ratio=0.34)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, qwen2_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("trunks")
    chats(root / "train.jsonl", 11)
    chats(root / "valid.jsonl", 4)
    return root


@pytest.fixture
def spec(root: Path, qwen2_folder: Path, tmp_path: Path) -> TrainSpec:
    """Three steps an epoch of 2, 2 and 1 micro-batches; validates, samples, saves inside epochs."""
    return TrainSpec(
        model=HFModel(path=str(qwen2_folder)),
        data=JsonlData(train=str(root / "train.jsonl"), valid=str(root / "valid.jsonl")),
        objective=SFT(),
        optimizer=AdamW(),
        precision=Precision(name="auto"),
        packing=Packing(max_length=80),
        lora=Lora(dropout=0.2),
        schedule=WSD,
        lr=1e-3,
        callbacks=Callbacks(
            validation=Validation(every_epochs=None, every_steps=2),
            samples=Samples(prompts=1, every_epochs=1),
            chosen={"early_stopping": EarlyStopping(patience=50)},
        ),
        generation=Generation(max_new_tokens=4),
        accumulate=2,
        epochs=2,
        compile="off",
        run_dir=str(tmp_path / "run"),
    )


def lengths(*specs: TrainSpec, per_epoch: int = 3, compiled: bool = False) -> list[Length]:
    return [Length(spec=spec, steps_per_epoch=per_epoch, compiled=compiled) for spec in specs]


class Keeper(Observer):
    """Keeps branches of a run at some steps, as a sweep does."""

    def __init__(self, folder: RunFolder, steps: Collection[int], rungs: Collection[int]) -> None:
        self.folder, self.keeps, self.rungs = folder, steps, rungs

    def saved(self, step: int, path: Path) -> None:
        if step in self.keeps:
            keep_branch(self.folder, step, path)


@pytest.mark.parametrize(
    ("rising", "rungs"),
    [
        pytest.param(False, (), id="falling-plain", marks=pytest.mark.slow),
        pytest.param(True, (3,), id="rising-rungs"),
        pytest.param(True, (), id="rising-plain", marks=pytest.mark.slow),
        pytest.param(False, (3,), id="falling-rungs", marks=pytest.mark.slow),
    ],
)
def test_a_branch_is_its_run_trained_alone(
    spec: TrainSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rising: bool,
    rungs: Collection[int],
) -> None:
    """With dropout, accumulation, validation inside epochs, and the parting inside an epoch.

    `rising`: the validation loss does, so that the best checkpoint is one the trunk wrote.
    """
    if rising:
        monkeypatch.setattr(
            Fit,
            "tuned_numbers",
            lambda fit: Evaluation({"loss": 1.0 + fit.module.trainer.global_step}, None),
        )
    short = spec
    middle, long = replace(short, epochs=3), replace(short, epochs=5)
    plan = plan_trunks(lengths(short, middle, long))
    assert plan == [BranchPoint(2, 4), BranchPoint(2, 6), None]

    trunk = RunFolder(tmp_path / "trunk")
    run(replace(long, run_dir=str(trunk.path)), observer=Keeper(trunk, {4, 6}, rungs))
    for job, found in zip((short, middle), plan, strict=False):
        assert found is not None
        name = f"{job.epochs}"
        alone = replace(job, run_dir=str(tmp_path / f"alone-{name}"))
        run(alone, observer=Keeper(RunFolder(Path(alone.run_dir)), (), rungs))
        mine = replace(job, run_dir=str(tmp_path / f"branch-{name}"))
        folder = RunFolder(Path(mine.run_dir))
        branch(branch_file(trunk, found.step), trunk=trunk, spec=mine, folder=folder)
        assert CheckpointStore(folder.checkpoints).saved()[-1].step == found.step

        seen: list[int] = []

        class Watch(Keeper):
            def after_step(self, row: dict[str, float], seen: list[int] = seen) -> None:
                seen.append(int(row["step"]))

        result = run(replace(mine, resume="auto"), observer=Watch(folder, (), rungs))
        assert seen == list(range(found.step + 1, 3 * job.epochs + 1))  # the rest alone
        assert left_behind(folder.path) == left_behind(Path(alone.run_dir))
        assert checkpoints(folder) == checkpoints(RunFolder(Path(alone.run_dir)))
        assert identity(folder.config()) == identity(RunFolder(Path(alone.run_dir)).config())
        assert folder.config() == {**dump(alone), "run_dir": mine.run_dir}
        assert (result.best_step < found.step) == rising


def checkpoints(folder: RunFolder) -> list[dict[str, Any]]:
    """Weights, optimizer and learning rate of every checkpoint, and whose it says it is."""
    found = []
    for saved in CheckpointStore(folder.checkpoints).saved():
        content = saved.load()
        content["run"].pop("run_dir")
        content["run"].pop("resume")
        kept = {k: content[k] for k in ("adapter", "optimizer_states", "lr_schedulers")}
        found.append({**kept, "run": content["run"], "identity": content["identity"]})
    return [flat(content) for content in found]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested content as dotted keys, tensors as lists."""
    if isinstance(value, torch.Tensor):
        return {prefix: (str(value.dtype), value.tolist())}
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in items for k, v in flat(item, f"{prefix}.{key}").items()}
    return {prefix: value}


def test_a_branch_is_told_whole_to_loggers(spec: TrainSpec, tmp_path: Path) -> None:
    """A W&B run and TensorBoard events of its own, with the steps it did not take itself."""
    watched = replace(
        spec, logger=Loggers(chosen={"wandb": WandbLogs(), "tensorboard": TensorBoardLogs()})
    )
    trunk, folder = RunFolder(tmp_path / "trunk"), RunFolder(tmp_path / "branch")
    run(replace(watched, epochs=3, run_dir=str(trunk.path)), observer=Keeper(trunk, {4}, ()))
    mine = replace(watched, run_dir=str(folder.path), resume="auto")
    branch(branch_file(trunk, 4), trunk=trunk, spec=mine, folder=folder)
    run(mine)
    ids = [(f.path / "wandb_id.txt").read_text() for f in (trunk, folder)]
    assert ids[0] != ids[1]
    logged = history(folder.path)
    assert list(logged) == [ids[1]]
    assert sorted(logged[ids[1]]) == list(range(7))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 7))


def test_a_branch_that_was_begun_is_not_begun_again(spec: TrainSpec, tmp_path: Path) -> None:
    trunk, folder = RunFolder(tmp_path / "trunk"), RunFolder(tmp_path / "branch")
    run(replace(spec, epochs=3, run_dir=str(trunk.path)), observer=Keeper(trunk, {4}, ()))
    other = replace(spec, lr=0.5, run_dir=str(folder.path))
    with pytest.raises(ResumeError, match="no trunk of this run"):
        branch(branch_file(trunk, 4), trunk=trunk, spec=other, folder=folder)
    assert not folder.path.exists()
    mine = replace(spec, run_dir=str(folder.path))
    branch(branch_file(trunk, 4), trunk=trunk, spec=mine, folder=folder)
    before = sorted(p.name for p in folder.checkpoints.iterdir())
    run(replace(mine, resume="auto"))
    branch(branch_file(trunk, 4), trunk=trunk, spec=mine, folder=folder)
    after = sorted(p.name for p in folder.checkpoints.iterdir())
    assert before[-1].startswith("step-000004")
    assert after[-1].startswith("step-000006")


def test_where_jobs_part(spec: TrainSpec) -> None:
    """As long as both schedules agree, the next step's included; the last step is always left."""
    for epochs, other in ((2, 3), (2, 9), (4, 5), (3, 3)):
        short, long = lengths(replace(spec, epochs=epochs), replace(spec, epochs=other))
        step = branch_step(short, long)
        assert all(short.factor(i) == long.factor(i) for i in range(step + 1))
        ends = step + 1 == short.total_steps
        assert ends or short.factor(step + 1) != long.factor(step + 1)
        assert 0 < step < short.total_steps
    constant = replace(spec, schedule=Schedule(shape="constant", warmup_epochs=0.5))
    short, long = lengths(constant, replace(constant, epochs=4))
    assert branch_step(short, long) == 5


def test_who_shares_a_trunk(spec: TrainSpec) -> None:
    two, three, five = (replace(spec, epochs=epochs) for epochs in (2, 3, 5))
    steps = replace(spec, max_steps=8)
    plan = plan_trunks(lengths(two, five, steps, replace(three, lr=9.0), replace(two, lr=9.0)))
    assert plan == [BranchPoint(1, 4), None, BranchPoint(1, 5), None, BranchPoint(3, 4)]
    assert plan_trunks(lengths(two)) == [None]
    assert plan_trunks(lengths(two, two)) == [None, BranchPoint(0, 5)]  # the same job twice

    def unshared(*specs: TrainSpec) -> bool:
        return not any(plan_trunks(lengths(*specs)))

    share = Schedule(shape="wsd", warmup_ratio=0.34)
    assert unshared(replace(two, schedule=share), replace(five, schedule=share))
    cosine = Schedule(shape="cosine", warmup_steps=2)
    assert unshared(replace(two, schedule=cosine), replace(five, schedule=cosine))
    assert unshared(two, replace(five, seed=1))
    assert unshared(two, replace(five, checkpoint=Checkpointing(keep=5)))
    assert not unshared(two, replace(five, name="another name"))
    mixed = [*lengths(two), *lengths(five, compiled=True)]
    assert not any(plan_trunks(mixed))


def test_the_line_that_says_what_it_costs(spec: TrainSpec) -> None:
    cosine = Schedule(shape="cosine", warmup_ratio=0.1)
    specs = [
        replace(spec, lr=lr, epochs=epochs, schedule=cosine)
        for lr in (1e-4, 3e-4, 1e-3)
        for epochs in (3, 5)
    ]
    line = plan_line(lengths(*specs, per_epoch=10))
    # 15 epochs of trunks, and 3 x 6 steps (a fifth of 30) behind 24 shared ones
    assert line == (
        "6 runs, 24 epochs; with schedule=wsd schedule.warmup_ratio=null schedule.warmup_steps=3 "
        "epochs=3,5 would share trunks: 16.8 epochs"
    )
    wsd = Schedule(shape="wsd", warmup_steps=3)
    shared = plan_line(lengths(*(replace(s, schedule=wsd) for s in specs), per_epoch=10))
    assert shared == "6 runs, 24 epochs; epochs=3,5 share trunks: 16.8 epochs"
    assert plan_line(lengths(*specs[::2], per_epoch=10)) == "3 runs, 9 epochs"


def test_lengths_are_those_that_training_finds(spec: TrainSpec, tmp_path: Path) -> None:
    class Told(Observer):
        def starts(self, *, total_steps: int, steps_per_epoch: int, step: int) -> None:
            self.told = (total_steps, steps_per_epoch)

    short = replace(spec, batch_size=2, accumulate=1, packing=Packing(max_length=60))
    jobs = [short, replace(short, epochs=5), replace(short, lr=0.1, max_steps=4, epochs=9)]
    lengths = lengths_of(jobs)
    assert lengths is not None
    watcher = Told()
    run(short, observer=watcher)
    assert watcher.told == (lengths[0].total_steps, lengths[0].steps_per_epoch)
    assert [length.total_steps for length in lengths][2] == 4
    assert not any(length.compiled for length in lengths)
    assert plan_trunks(lengths)[0] is not None


def test_compiled_and_uncompiled_jobs_are_told_apart(
    spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """compile=auto decides by the number of steps, and so by the length."""
    monkeypatch.setattr("graftlab.models.compile.COMPILE_SECONDS", 0.1)
    monkeypatch.setattr("graftlab.models.compile.find_obstacle", lambda device: None)
    jobs = [replace(spec, compile="auto", epochs=epochs) for epochs in (1, 300, 301)]
    lengths = lengths_of(jobs)
    assert lengths is not None
    assert [length.compiled for length in lengths] == [False, True, True]
    assert plan_trunks(lengths)[0] is None
    dora = lengths_of([replace(job, lora=Lora(dora=True)) for job in jobs])
    assert dora is not None
    assert not any(length.compiled for length in dora)


def test_jobs_that_share_nothing_are_not_measured(spec: TrainSpec) -> None:
    missing = replace(spec, data=JsonlData(train="nowhere.jsonl"))
    assert lengths_of([missing, replace(missing, lr=0.5)]) is None


def test_the_launcher_finds_lengths_without_pytorch(spec: TrainSpec, tmp_path: Path) -> None:
    """It lives as long as its sweep, and PyTorch takes 279 MB."""
    jobs = [replace(spec, compile="auto", epochs=epochs) for epochs in (1, 2)]
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps([dump(job) for job in jobs]), encoding="utf-8")
    program = (
        "import json, sys\nfrom graftlab.registry import restore\n"
        "from graftlab.sweeps.step_counts import lengths_apart\n"
        "from graftlab.verbs.train import TrainSpec\n"
        "jobs = [restore(TrainSpec, job) for job in json.load(open(sys.argv[1]))]\n"
        "found = [(job.total_steps, job.compiled) for job in lengths_apart(jobs)]\n"
        "print(json.dumps([found, 'torch' in sys.modules]))"
    )
    command = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, held = json.loads(done.stdout)
    lengths = lengths_of(jobs)
    assert lengths is not None
    assert found == [[length.total_steps, length.compiled] for length in lengths]
    assert not held


def test_what_cannot_be_measured_is_told(spec: TrainSpec) -> None:
    missing = replace(spec, data=JsonlData(train="nowhere.jsonl"))
    with pytest.raises(GraftlabError, match=r"nowhere\.jsonl"):
        lengths_apart([missing, replace(missing, epochs=7)])
    assert lengths_apart([missing, replace(missing, lr=0.5)]) is None
