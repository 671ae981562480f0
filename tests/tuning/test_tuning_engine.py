"""A tuning on the engine of sweeps: round after round, killed and gone on with, shared steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from graftlab.errors import Interrupted
from graftlab.registry import dump
from graftlab.sweeps.claim import Claim
from graftlab.sweeps.engine import launch, own_facts, prepare
from graftlab.sweeps.identity import data_identity, job_identity
from graftlab.sweeps.jobs import NewJob
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.prefix_sharing import Length, branch_step
from graftlab.sweeps.rules import Rules
from graftlab.sweeps.space import Point
from graftlab.sweeps.spec import Sweep
from graftlab.sweeps.worker import Worker
from graftlab.training.schedule import Schedule
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.tuning.proposal import Proposal, propose
from graftlab.tuning.source import Tuner
from graftlab.tuning.space import Axis, Cell, Space
from surfaces import EPOCH, Losses, grid, surface
from sweep_runs import Here, small_run

EPOCHS = {n * EPOCH: n for n in (1, 2, 4)}


class Pretender(Worker):
    """Takes no time; a job's loss is that of its cell, and after so many it is killed."""

    loss: Losses
    dies_after: int | None = None
    done = 0

    def perform(self, claimed: Claim, folder: Path) -> float | None:
        if self.dies_after is not None and Pretender.done >= self.dies_after:
            raise Interrupted("SIGTERM", 143)
        Pretender.done += 1
        swept = claimed.job.swept
        steps = EPOCH * int(swept["epochs"])
        luck = 0.001 * int(swept.get("seed", 0)) * (1 if swept["lora.rank"] == "4" else -1)
        return self.loss(Cell((swept["lr"], swept["lora.rank"]), steps)) + luck


def compose(point: Point) -> list[NewJob]:
    return [NewJob(identity=json.dumps(point), label="", swept=point, spec={})]


def tuner_of(folder: Path, base: float, **limits: Any) -> Tuner:
    ledger, _ = prepare(folder, Sweep())
    return Tuner(
        ledger=ledger,
        space=grid(),
        epochs=EPOCHS,
        compose=compose,
        base_loss=lambda: base,
        **{"share": 0.2, **limits},
    )


def tune(folder: Path, *, dies_after: int | None = None, **limits: Any) -> Proposal:
    """A tuning by workers that only pretend to train. Raises Interrupted where they die."""
    loss, base = surface(6)
    tuner = tuner_of(folder, base, **limits)
    kind = type("Mortal", (Pretender,), {"loss": staticmethod(loss), "dies_after": dies_after})
    Pretender.done = 0
    ended = launch(
        tuner.ledger, tuner, lambda name: Step(lambda: kind(tuner.ledger, name)), slots=4
    )
    seen = tuner.seen(ended.jobs)
    found = propose(tuner.reached(ended.jobs), seen, base=base, epochs=EPOCHS)
    assert found is not None
    return found


class Step(Here):
    """One worker in this process, which stays as long as jobs come."""

    def start(self) -> None:
        self._worker = self.worker()
        self._worker._over = lambda: True  # type: ignore[method-assign]

    def poll(self) -> bool:
        self._worker.work()
        ledger, name = self._worker.ledger, self._worker.launch
        return not ledger.fact(f"closed {name}")


def test_killed_twice_it_proposes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftlab.sweeps.engine.LOOK_SECONDS", 0.0)
    whole = tune(tmp_path / "whole")
    for dies_after in (4, 7):
        with pytest.raises(Interrupted):
            tune(tmp_path / "killed", dies_after=dies_after)
    again = tune(tmp_path / "killed")
    assert again == whole
    assert whole.runs == len(Ledger(tmp_path / "killed").jobs()) > 15
    assert Pretender.done == whole.runs - 4 - 7, "what was done was not done again"
    jobs = {json.dumps(job.swept): job for job in Ledger(tmp_path / "killed").jobs()}
    longer = [job for job in jobs.values() if job.swept["epochs"] != "1"]
    assert longer
    for job in longer:
        shorter = str(int(job.swept["epochs"]) // 2)
        assert job.trunk == jobs[json.dumps({**job.swept, "epochs": shorter})].number
        assert job.branch_step == {"1": 10, "2": 19}[shorter]


def test_the_same_line_with_a_larger_budget_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftlab.sweeps.engine.LOOK_SECONDS", 0.0)
    few = tune(tmp_path, most=8)
    assert few.runs == 8
    more = tune(tmp_path, share=0.3)
    assert more.runs > 8
    assert more.regret.middle <= few.regret.middle


def test_the_two_best_get_further_seeds_where_they_are_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftlab.sweeps.engine.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("graftlab.tuning.rounds.CLOSE", 0.5)
    found = tune(tmp_path, seeds=3)
    seeded = [job for job in Ledger(tmp_path).jobs() if "seed" in job.swept]
    assert {job.swept["seed"] for job in seeded} <= {"1", "2"}
    by_cell: dict[str, list[float]] = {}
    for job in Ledger(tmp_path).jobs():
        cell = json.dumps({k: v for k, v in job.swept.items() if k != "seed"})
        by_cell.setdefault(cell, []).append(job.score or 0.0)
    assert max(map(len, by_cell.values())) == 3
    chosen = by_cell[json.dumps(found.values)]
    assert found.loss.middle == pytest.approx(sum(chosen) / len(chosen))


@pytest.mark.slow
def test_a_longer_run_goes_on_from_a_shorter_one_and_equals_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = small_run(tmp_path)
    base = replace(small, schedule=Schedule(shape="wsd", warmup_steps=1, decay_ratio=0.4))
    lengths = {
        n: Length(spec=replace(base, epochs=n), steps_per_epoch=5, compiled=False) for n in (1, 2)
    }
    shared = branch_step(lengths[1], lengths[2])
    assert shared > 0

    def draft(point: Point) -> list[NewJob]:
        spec = replace(base, lr=float(point["lr"]), epochs=int(point["epochs"]))
        identity = job_identity(dump(spec), data_identity(spec.data))
        return [NewJob(identity=identity, label="", swept=point, spec=dump(spec))]

    ledger, _ = prepare(tmp_path / "tune", Sweep())
    tuner = Tuner(
        ledger=ledger,
        space=Space(
            axes=(Axis("lr", ("0.001",)),), ladder=5, lengths=(5, 10), shared={(5, 10): shared}
        ),
        epochs={5: 1, 10: 2},
        share=1.0,
        compose=draft,
        base_loss=lambda: 99.0,
    )
    rules = Rules(keeps=[shared])
    launch(
        ledger,
        tuner,
        lambda name: Step(lambda: Worker(ledger, name)),
        slots=1,
        facts=own_facts(rules, Sweep()),
    )
    short, long = ledger.jobs()
    assert (long.trunk, long.branch_step, long.state) == (short.number, shared, "done")
    assert f"Going on from step {shared} of 10" in capsys.readouterr().out
    alone = run(_alone(base, tmp_path / "alone"))
    assert alone.score == long.score
    mine, theirs = (
        load_file(folder / "adapter" / "adapter_model.safetensors")
        for folder in (ledger.folder / long.folder, tmp_path / "alone")
    )
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def _alone(base: TrainSpec, folder: Path) -> TrainSpec:
    return replace(base, lr=0.001, epochs=2, run_dir=str(folder))
