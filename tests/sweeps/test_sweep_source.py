"""Where jobs come from: searches end, share their trials, and go on from the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftlab.sweeps.engine import _Feeder
from graftlab.sweeps.jobs import NewJob
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.source import Search
from graftlab.sweeps.space import Dimension, Point
from graftlab.sweeps.spec import Sweep

RATE = Dimension(key="lr", low=1e-5, high=1e-1, log=True)


def compose(point: Point) -> list[NewJob]:
    """Jobs that are the same where their values are, however they are written."""
    identity = " ".join(f"{key}={float(text)}" for key, text in sorted(point.items()))
    return [NewJob(identity=identity, label="", swept=point, spec={})]


def replicated(point: Point) -> list[NewJob]:
    return [draft for seed in "012" for draft in compose({**point, "seed": seed})]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    ledger.create()
    return ledger


class Launch:
    """A launch whose jobs are done the moment it looks again."""

    def __init__(self, ledger: Ledger, *dimensions: Dimension, name: str = "a", **more) -> None:
        self.ledger, self.name = ledger, name
        given = {"search": "tpe", "trials": 14, "slots": 2} | more
        slots = given.pop("slots")
        made = given.pop("compose", compose)
        self.source = Search(Sweep(**given), dimensions, made, seed=3)
        self.feeder = _Feeder(ledger, self.source, name, slots)

    def turn(self, *, ends: int = 99) -> None:
        """Jobs are entered, and so many end."""
        self.feeder.feed()
        for job in [job for job in self.ledger.jobs(self.name) if job.state == "waiting"][:ends]:
            score = sum(float(value) for value in job.swept.values())
            self.ledger.end(job.number, "done", launch=self.name, score=score)

    def to_its_end(self) -> None:
        for _ in range(60):
            if self.source.exhausted:
                return
            self.turn()
        raise AssertionError("the search does not end")

    @property
    def points(self) -> list[dict[str, str]]:
        return [job.swept for job in self.ledger.jobs(self.name)]


def test_a_value_written_twice_is_tried_once_and_the_search_ends(ledger: Ledger) -> None:
    spellings = Dimension(key="lr", choices=("1e-3", "0.001", "1.0e-3", "0.002", "2e-3", "2.0e-3"))
    launch = Launch(ledger, spellings, trials=6)
    launch.to_its_end()
    assert sorted(float(point["lr"]) for point in launch.points) == [0.001, 0.002]
    again = Launch(ledger, spellings, trials=6, name="b")
    again.to_its_end()
    assert again.points == launch.points


def test_the_seed_may_be_what_is_searched(ledger: Ledger) -> None:
    launch = Launch(ledger, Dimension(key="seed", choices=tuple("0123456789")), trials=6)
    launch.to_its_end()
    assert len({point["seed"] for point in launch.points}) == 6


def test_replicates_are_one_trial(ledger: Ledger) -> None:
    launch = Launch(ledger, RATE, trials=4, compose=replicated)
    launch.to_its_end()
    assert len(launch.points) == 12
    more = Launch(ledger, RATE, trials=5, compose=replicated, name="b")
    more.to_its_end()
    assert more.points[:12] == launch.points
    assert len(more.points) == 15


def test_two_launches_share_the_trials_of_a_search(ledger: Ledger) -> None:
    both = [Launch(ledger, RATE, name=name, slots=slots) for name, slots in (("a", 2), ("b", 5))]
    for _ in range(40):
        for launch in both:
            launch.turn(ends=1)
    assert all(launch.source.exhausted for launch in both)
    assert both[0].points == both[1].points
    assert len(ledger.jobs()) == 14


def test_two_launches_that_draw_at_once_try_no_point_too_many(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other enters its point between this one's look into the ledger and its own."""
    slow, quick = (Launch(ledger, RATE, trials=3, name=name, slots=1) for name in "ab")
    drawn, draws = Search.draw, []

    def draw(source, jobs, rungs, *, room):
        drafts = drawn(source, jobs, rungs, room=room)
        if source is slow.source:
            draws.append(len(drafts))
            if len(draws) == 1:
                quick.to_its_end()
        return drafts

    monkeypatch.setattr(Search, "draw", draw)
    slow.turn()
    assert draws[0] == 1  # it had drawn a point, and gave it up
    slow.to_its_end()
    assert len(ledger.jobs()) == 3
    assert slow.points == quick.points


def test_a_search_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / name) for name in ("stopped", "whole")]
    for ledger in ledgers:
        ledger.create()
    stopped, whole = (Launch(ledger, RATE) for ledger in ledgers)
    for _ in range(6):
        stopped.turn()
    assert 10 < len(stopped.points) < 14  # some of them were learnt from
    again = Launch(ledgers[0], RATE, name="b")
    again.to_its_end()
    whole.to_its_end()
    assert again.points == whole.points


def test_jobs_of_another_space_are_no_trials(ledger: Ledger) -> None:
    ledger.add(compose({"lora.rank": "8"}), launch="other")
    launch = Launch(ledger, RATE, trials=3)
    assert not launch.source.wants(ledger.jobs()[0])
    launch.to_its_end()
    assert len(launch.points) == 3
    assert all(set(point) == {"lr"} for point in launch.points)
