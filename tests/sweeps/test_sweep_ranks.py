"""Jobs of several processes in a sweep: given room, told of, judged at rungs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from graftlab.errors import ConfigError
from graftlab.limits import cores, memory_bytes
from graftlab.sweeps.engine import prepare
from graftlab.sweeps.launchers.local import LocalLauncher
from graftlab.sweeps.rules import Rules
from graftlab.sweeps.slots import find_slots
from graftlab.sweeps.spec import Sweep
from graftlab.sweeps.watcher import arrived, watch_job
from graftlab.training.trainer import TrainerSpec
from sweep_crew import draft
from sweep_runs import jobs_of, run_sweep, small_run


def test_a_slot_has_room_for_all_processes_of_a_job(monkeypatch) -> None:
    def slots(devices, **more):
        given = {"accelerator": "cuda", "base_bytes": 0.0, "jobs": 9} | more
        return find_slots(None, None, devices=devices, **given)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots(2)] == ["0,1", "2,3"]
    with pytest.raises(ConfigError, match=r"trainer.devices=6.* 6 GPUs, and 5 are visible"):
        slots(6)
    on_cpu = slots(2, accelerator="cpu")
    assert len(on_cpu) == max(1, cores() // 2)
    # Each process loads a base of its own: two of a quarter of the memory fit once, not twice.
    memory = memory_bytes()
    monkeypatch.setattr("graftlab.sweeps.slots.cores", lambda: 64)
    one, two = (len(slots(n, accelerator="cpu", base_bytes=memory / 64, jobs=99)) for n in (1, 2))
    assert one // 2 == two


def test_an_observer_travels_whole(tmp_path) -> None:
    ledger, _ = prepare(tmp_path, Sweep())
    trunk = draft("x")
    branch = replace(draft("y"), trunk="x", branch_step=7)
    job, _ = ledger.add([trunk, branch], launch="a")
    rules = Rules("asha", 2, 0.5)
    maker, words = watch_job(ledger, job, rules).travels()
    assert maker == "graftlab.sweeps.watcher:arrived"
    ledger.put("rules", {"pruner": "none"})  # what is settled meanwhile is for other starts
    for first in (True, False):
        there = arrived(words, first=first)
        assert (there.rules, there.keeps, there.job.number) == (rules, {7}, 0)
        there.starts(total_steps=10, steps_per_epoch=5, step=0)
        assert there.rungs == {2, 4, 8}
        assert (ledger.jobs()[0].progress == {}) is not first
        with ledger.writing() as db:
            db.execute("UPDATE jobs SET progress = '{}'")


@pytest.mark.slow
def test_jobs_of_two_processes_are_told_of_and_pruned(tmp_path) -> None:
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")
    jobs = jobs_of(replace(small_run(tmp_path / "given"), trainer=trainer), (1e-3, 5e-3, 2e-2))
    halving = {"pruner": "asha", "reduction": 3, "first_rung": 0.5}
    ended = run_sweep(tmp_path / "sweep", jobs, LocalLauncher(slots=1), devices=2, **halving)
    states = sorted(job.state for job in ended.jobs)
    assert states == ["done", "pruned", "pruned"], [job.error for job in ended.jobs]
    done = next(job for job in ended.jobs if job.state == "done")
    total = int(done.progress["total_steps"])
    result = json.loads((ended.folder / done.folder / "result.json").read_text())
    assert done.score == result["score"]
    assert done.progress["step"] == result["steps"] == total
    for job in ended.jobs:
        assert job.progress["loss"] > 0
        assert not list((ended.folder / job.folder).glob("ranks*"))
