"""Real jobs in real workers: the same results as solo runs, whatever was killed on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from graftlab.adapters.lora import Lora
from graftlab.registry import dump
from graftlab.sweeps import __main__ as worker
from graftlab.sweeps.engine import SweepOutcome, launch, prepare
from graftlab.sweeps.identity import data_identity, job_identity
from graftlab.sweeps.jobs import NewJob
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.pool import Pool
from graftlab.sweeps.prefix_sharing import Length, plan_trunks
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.source import Grid
from graftlab.sweeps.spec import Sweep
from graftlab.tracking.history import TIMES, History
from graftlab.training.schedule import Schedule
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples
from sweep_runs import small_run, sweep_here
from tolerance import rounding

RATES = (1e-3, 5e-3, 2e-2)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> TrainSpec:
    """Five steps an epoch, two epochs, a sample at the end."""
    spec = small_run(tmp_path_factory.mktemp("sweep"))
    return replace(spec, callbacks=Callbacks(samples=Samples(prompts=1)))


def drafts(base: TrainSpec) -> list[NewJob]:
    found = []
    for rank in (2, 4):
        for rate in RATES:
            config = dump(replace(base, lr=rate, lora=Lora(rank=rank, dropout=0.1)))
            found.append(
                NewJob(
                    identity=job_identity(config, data_identity(base.data)),
                    label=f"rank{rank}_lr{rate}",
                    swept={"lora.rank": str(rank), "lr": str(rate)},
                    spec=config,
                )
            )
    return found


def sweep(folder: Path, jobs: list[NewJob], *, slots: int = 2, **settings) -> SweepOutcome:
    given = Sweep(**settings)
    ledger, _ = prepare(folder, given)
    places = [Slot(f"cpu {i}", {"OMP_NUM_THREADS": "1"}) for i in range(slots)]
    return launch(
        ledger, Grid(jobs), lambda name: Pool(ledger, name, places, given.retries), slots=slots
    )


@pytest.fixture(scope="module")
def solo(base: TrainSpec, tmp_path_factory) -> Path:
    """The fifth job, trained alone in this process."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("solo") / "run"
    run(replace(base, lr=RATES[1], lora=Lora(rank=4, dropout=0.1), run_dir=str(folder)))
    torch.set_num_threads(threads)
    return folder


def same(one: Path, other: Path, *, rows: int = 11) -> None:
    """Weights bit for bit, and the log but for times."""
    for adapter in ("adapter", "adapter-final"):
        first, second = (load_file(d / adapter / "adapter_model.safetensors") for d in (one, other))
        assert first.keys() == second.keys()
        assert all(first[name].equal(second[name]) for name in first)
    logs = [
        [{k: v for k, v in row.items() if k not in TIMES | {"rung_loss"}} for row in history.rows]
        for history in (History(d / "train_log.csv") for d in (one, other))
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == rows


def test_a_job_of_a_sweep_is_the_run_it_would_be_alone(base, solo, tmp_path) -> None:
    ended = sweep(tmp_path, drafts(base))
    assert ended.count("done") == 6
    assert all(job.progress["step"] == 10 for job in ended.jobs)
    same(tmp_path / ended.jobs[4].folder, solo)
    score = json.loads((solo / "result.json").read_text())["score"]
    assert ended.jobs[4].score == score
    # Two workers loaded their base once each: later jobs found it resting.
    logs = [(tmp_path / job.folder / "train.log").read_text() for job in ended.jobs]
    assert sum("still loaded" in log for log in logs) == 4


@pytest.mark.slow
def test_halving_ends_with_one_job_like_its_solo_run(base, solo, tmp_path) -> None:
    jobs = drafts(base)
    ended = sweep_here(tmp_path, jobs, pruner="asha", reduction=3, first_rung=0.4)
    done = [job for job in ended.jobs if job.state == "done"]
    pruned = [job for job in ended.jobs if job.state == "pruned"]
    assert done
    assert len(done) + len(pruned) == 6
    assert len(pruned) >= 3
    rungs = Ledger(tmp_path).rungs()
    assert set(rungs) == {(10, 2), (10, 6)}
    assert len(rungs[10, 2].losses) == 6
    for job in pruned:
        assert not (tmp_path / job.folder / "result.json").exists()
        assert job.progress["step"] in (2, 6)
    # Without the pruner, the same sweep trains the pruned ones to their end.
    whole = sweep_here(tmp_path, jobs)
    assert whole.count("done") == 6
    same(tmp_path / whole.jobs[4].folder, solo)


@pytest.mark.slow
def test_epochs_share_a_trunk_and_equal_their_solo_runs(base, tmp_path) -> None:
    wsd = replace(base, schedule=Schedule(shape="wsd", warmup_steps=2, decay_ratio=0.4))
    specs = [replace(wsd, epochs=epochs) for epochs in (1, 2)]
    plan = plan_trunks([Length(spec=s, steps_per_epoch=5, compiled=False) for s in specs])
    assert [branch is not None for branch in plan] == [True, False]
    configs = [dump(spec) for spec in specs]
    names = [job_identity(config, "data") for config in configs]
    jobs = [
        NewJob(
            identity=name,
            label=f"epochs{spec.epochs}",
            swept={"epochs": str(spec.epochs)},
            spec=config,
            trunk=names[branch.trunk] if branch else None,
            branch_step=branch.step if branch else None,
        )
        for name, spec, config, branch in zip(names, specs, configs, plan, strict=True)
    ]
    ended = sweep(tmp_path, jobs, slots=1)
    assert ended.count("done") == 2
    short = tmp_path / ended.jobs[0].folder
    assert "Going on from step" in (short / "train.log").read_text()
    alone = tmp_path / "alone"
    program = (
        "import json, sys; from graftlab.registry import restore\n"
        "from graftlab.training.spec import TrainSpec\n"
        "from graftlab.training.start import run\n"
        "run(restore(TrainSpec, json.loads(sys.argv[1])))"
    )
    config = {**configs[0], "run_dir": str(alone)}
    subprocess.run(
        [sys.executable, "-c", program, json.dumps(config)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    same(short, alone, rows=6)


def test_a_worker_is_told_how_many_train_together(tmp_path, monkeypatch) -> None:
    ledger, _ = prepare(tmp_path, Sweep())
    monkeypatch.setattr(worker.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(worker, "leave_with_parent", lambda: None)
    made = []

    class Idle:
        def work(self) -> int:
            return 7

    def maker(ledger, launch: str, *, most: int) -> Idle:
        made.append((most, launch))
        return Idle()

    monkeypatch.setattr(worker, "JointWorker", maker)
    assert worker.main([str(ledger.folder), "a", "--joint", "6"]) == 7
    assert made == [(6, "a")]


def nearly(one: Path, other: Path) -> None:
    """The validation losses agree as far as sums in another order do."""
    losses = [
        [row["valid_loss"] for row in History(d / "train_log.csv").rows if "valid_loss" in row]
        for d in (one, other)
    ]
    assert len(losses[0]) == len(losses[1]) == 3
    assert losses[0] == pytest.approx(losses[1], abs=rounding(max(losses[1]), depth=1))


def test_jobs_that_train_together_are_the_runs_they_would_be_alone(base, solo, tmp_path) -> None:
    dora = dump(replace(base, lora=Lora(rank=2, dora=True)))
    alone = NewJob(identity="dora", label="dora", swept={"lora.dora": "true"}, spec=dora)
    ended = sweep_here(tmp_path, [*drafts(base), alone], together=6)
    assert ended.count("done") == 7
    nearly(tmp_path / ended.jobs[4].folder, solo)
    logs = [(tmp_path / job.folder / "train.log").read_text() for job in ended.jobs]
    assert all("Trained jointly: jobs 0, 1, 2, 3, 4, 5." in log for log in logs[:6])
    assert "jointly" not in logs[6]
    assert all((tmp_path / job.folder / "adapter").is_dir() for job in ended.jobs)


def test_halving_frees_places_in_a_joint_training(base, solo, tmp_path) -> None:
    halved = {"pruner": "asha", "reduction": 3, "first_rung": 0.4}
    ended = sweep_here(tmp_path, drafts(base), together=6, **halved)
    # All six reach the rung in one step, so exactly two of them go on, and none of those further.
    rungs = Ledger(tmp_path).rungs()
    assert len(rungs[10, 2].losses) == 6
    assert len(rungs[10, 2].promoted) == 2
    best = sorted(rungs[10, 2].losses, key=rungs[10, 2].losses.__getitem__)[:2]
    assert rungs[10, 2].promoted == set(best)
    states = {job.number: job.state for job in ended.jobs}
    assert sum(state == "done" for state in states.values()) == 1
    assert sum(state == "pruned" for state in states.values()) == 5
    whole = sweep_here(tmp_path, drafts(base), together=6)
    assert whole.count("done") == 6
    nearly(tmp_path / whole.jobs[4].folder, solo)


@pytest.mark.slow
def test_what_crashed_together_is_tried_alone(base, tmp_path) -> None:
    jobs = drafts(base)[:3]
    ledger, _ = prepare(tmp_path, Sweep(retries=0))
    ledger.add(jobs, launch="earlier")
    program = tmp_path / "crashing.py"
    program.write_text(
        "import sys\n"
        "import graftlab.training.joint.run as joint\n"
        "def crash(jobs, **more):\n"
        "    raise MemoryError('all of it')\n"
        "    yield\n"
        "joint.execute_together = crash\n"
        "from graftlab.sweeps.__main__ import main\n"
        "sys.exit(main())\n"
    )
    places = [Slot("cpu", {"OMP_NUM_THREADS": "1"})]
    crashing = [str(program)]
    ended = launch(
        ledger,
        Grid(jobs),
        lambda name: Pool(ledger, name, places, 0, extra=("--joint", "3"), program=crashing),
        slots=1,
    )
    assert ended.count("done") == 3
    assert [job.attempts for job in ended.jobs] == [0, 0, 0]  # it was none of theirs


@pytest.mark.slow
def test_killed_three_times_every_job_is_done_once_and_the_same(base, solo, tmp_path) -> None:
    program = (
        "import pickle, sys; from pathlib import Path; sys.path[:0] = sys.argv[3:]\n"
        "import test_sweep_training as t\n"
        "t.sweep(Path(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes()))"
    )
    import pickle

    file = tmp_path / "jobs.pickle"
    file.write_bytes(pickle.dumps(drafts(base)))
    folder = tmp_path / "sweep"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    chance = random.Random(3)
    for _ in range(3):
        launcher = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), str(file), *paths],
            start_new_session=True,
        )
        time.sleep(chance.uniform(8, 20))
        workers = [
            int(job.worker.rpartition(":")[2]) for job in Ledger(folder).jobs() if job.worker
        ]
        for process in (launcher.pid, *workers):
            with suppress(ProcessLookupError):  # on a fast machine all is done by then
                os.kill(process, signal.SIGKILL)
        launcher.wait()
    ended = sweep(folder, drafts(base))
    assert ended.count("done") == 6
    assert {job.attempts for job in ended.jobs} == {0}
    same(folder / ended.jobs[4].folder, solo)
    undisturbed = sweep(tmp_path / "other", drafts(base))
    assert [job.score for job in ended.jobs] == [job.score for job in undisturbed.jobs]
