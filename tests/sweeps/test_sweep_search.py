"""Proposals: the same after a kill, inside the space, never twice, and better than chance."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.sweeps import study
from graftlab.sweeps.search import propose
from graftlab.sweeps.space import Dimension, Point, grid
from graftlab.sweeps.study import Trial

LR = Dimension(key="lr", low=1e-5, high=1e-1, log=True)
RANK = Dimension(key="lora.rank", low=8, high=128, log=True, integer=True)
LORA = Dimension(key="lora", choices=("attn", "dora"))
DROPOUT = Dimension(key="lora.dropout", low=0, high=0.5, when=("lora", "dora"))
SPACE = [LR, DROPOUT, RANK, LORA]


def loss(point: Point) -> float:
    """A bowl around lr=1e-3 that likes dora with a dropout of 0.1."""
    off = math.log10(float(point["lr"])) + 3
    dropout = abs(float(point.get("lora.dropout", 0.6)) - 0.1)
    return off * off + dropout + 0.1 * abs(math.log2(int(point["lora.rank"])) - 5)


def searched(
    method: str, trials: int, *, seed: int = 0, space: list[Dimension] = SPACE
) -> list[Trial]:
    """A search of one job after the other; every third is pruned at step 10."""
    history: list[Trial] = []
    for number in range(trials):
        point = propose(space, history, method=method, seed=seed, number=number)
        assert point is not None
        if number % 3 == 2:
            history.append(Trial(point=point, state="pruned", losses={10: loss(point) + 0.2}))
        else:
            history.append(Trial(point=point, state="done", score=loss(point)))
    return history


@pytest.mark.parametrize(
    ("method", "trials"),
    [("random", 7), ("tpe", 16), pytest.param("gp", 11, marks=pytest.mark.slow)],
)
def test_a_search_goes_on_as_if_it_had_not_been_killed(method: str, trials: int) -> None:
    """In another process, with other hashes, from the record alone."""
    # What a Gaussian process learns from may come from anywhere; each of its points takes a second.
    kept = searched("random" if method == "gp" else method, trials)
    number = len(kept)
    wanted = propose(SPACE, kept, method=method, seed=0, number=number)
    written = [
        {"point": t.point, "score": t.score, "state": t.state, "losses": list(t.losses.items())}
        for t in kept
    ]
    program = (
        "import json, sys; from graftlab.sweeps.search import Trial, propose\n"
        "from graftlab.sweeps.space import Dimension\n"
        "space, history, method, number = json.load(sys.stdin)\n"
        "tuples = lambda d: {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}\n"
        "space = [Dimension(**tuples(d)) for d in space]\n"
        "history = [Trial(**{**t, 'losses': dict(t['losses'])}) for t in history]\n"
        "print(json.dumps(propose(space, history, method=method, seed=0, number=number)))"
    )
    fields = ("key", "choices", "low", "high", "step", "log", "integer", "when")
    space = [{name: getattr(d, name) for name in fields} for d in SPACE]
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([space, written, method, number]),
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
    np.random.seed(1)  # nor does anybody else's use of the global generators matter
    again = propose(SPACE, kept, method=method, seed=0, number=number)
    assert again == wanted
    if method != "gp":  # whose best guess is one and the same, however it is searched for
        assert propose(SPACE, kept, method=method, seed=1, number=number) != again
        assert propose(SPACE, kept, method=method, seed=0, number=number + 9) != again


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(0, 10**6), length=st.integers(0, 14))
def test_proposals_lie_in_the_space(seed: int, number: int, length: int) -> None:
    history = HISTORY[:length]
    point = propose(SPACE, history, method="tpe", seed=seed, number=number)
    assert point is not None
    assert list(point) == [d.key for d in SPACE if d.key in point]
    assert 1e-5 <= float(point["lr"]) <= 1e-1
    assert 8 <= int(point["lora.rank"]) <= 128
    assert ("lora.dropout" in point) == (point["lora"] == "dora")


HISTORY = searched("random", 14)


@pytest.mark.parametrize("method", ["random", "tpe", "gp"])
def test_a_small_space_is_searched_to_its_end(method: str) -> None:
    """Every point once, with others running at the same time, and then nothing."""
    space = [
        Dimension(key="a", choices=("1", "2", "4")),
        LORA,
        Dimension(key="b", low=1, high=2, integer=True, when=("lora", "dora")),
    ]
    history: list[Trial] = []
    for number in range(9):
        point = propose(space, history, method=method, seed=3, number=number)
        assert point is not None
        done = number % 2 == 0
        history.append(
            Trial(
                point=point,
                state="done" if done else "running",
                score=float(point["a"]) if done else None,
            )
        )
    points = [tuple(sorted(t.point.items())) for t in history]
    assert len(set(points)) == 9
    assert propose(space, history, method=method, seed=3, number=9) is None
    listed = [space[0], LORA, Dimension(key="b", choices=("1", "2"), when=("lora", "dora"))]
    assert set(points) == {tuple(sorted(p.items())) for p in grid(listed)}


def test_tpe_learns_where_losses_are_low() -> None:
    def later(method: str, seed: int) -> float:
        return statistics.mean(loss(t.point) for t in searched(method, 40, seed=seed)[20:])

    for seed in range(3):
        assert later("tpe", seed) < 0.6 * later("random", seed)


def test_a_gaussian_process_finds_the_bottom_of_a_bowl() -> None:
    space = [LR, Dimension(key="warmup", low=0, high=1)]
    history: list[Trial] = []
    for number in range(16):
        point = propose(space, history, method="gp", seed=0, number=number)
        assert point is not None
        off = (math.log10(float(point["lr"])) + 3) ** 2 + (float(point["warmup"]) - 0.7) ** 2
        history.append(Trial(point=point, state="done", score=off))
    early = min(t.score for t in history[:10] if t.score is not None)
    late = min(t.score for t in history[10:] if t.score is not None)
    assert late < early / 2


def test_log_scales_are_drawn_by_ratio() -> None:
    points = [propose(SPACE, [], method="random", seed=0, number=n) for n in range(200)]
    below = sum(float(p["lr"]) < 1e-3 for p in points if p)  # the middle of 1e-5 and 1e-1
    assert 75 < below < 125
    ranks = sum(int(p["lora.rank"]) < 32 for p in points if p)  # of 8 and 128
    assert 75 < ranks < 125


@pytest.mark.parametrize("method", ["tpe", "gp"])
@pytest.mark.parametrize("state", ["failed", "pruned"])
def test_failed_and_pruned_jobs_are_lessons(method: str, state: str) -> None:
    """Whatever is above lr=1e-3 fails, or is pruned with a high loss: proposals go below."""
    space = [LR]
    history = []
    for number in range(16):
        point = propose(space, [], method="random", seed=5, number=number)
        assert point is not None
        if float(point["lr"]) < 1e-3:
            score = 1 + abs(math.log10(float(point["lr"])) + 4)
            history.append(Trial(point=point, state="done", score=score))
        elif state == "failed":
            history.append(Trial(point=point, state="failed"))
        else:
            history.append(Trial(point=point, state="pruned", losses={4: 2.0, 8: 3.0}))
    assert {"done", state} == {trial.state for trial in history}
    numbers = range(16, 28 if method == "tpe" else 20)
    next_points = [propose(space, history, method=method, seed=5, number=n) for n in numbers]
    below = sum(float(p["lr"]) < 1e-3 for p in next_points if p)
    assert below >= 0.75 * len(numbers)


def test_jobs_at_the_same_time_try_different_things() -> None:
    history = searched("tpe", 20)
    running: list[Trial] = []
    for number in range(20, 28):
        point = propose(SPACE, [*history, *running], method="tpe", seed=0, number=number)
        assert point is not None
        running.append(Trial(point=point))
    assert len({tuple(t.point.items()) for t in running}) == 8
    alone = propose(SPACE, history, method="tpe", seed=0, number=27)
    assert running[-1].point != alone  # the others were known


def test_a_changed_space_keeps_what_still_fits() -> None:
    narrow = [Dimension(key="lr", low=1e-4, high=1e-2, log=True), RANK, LORA, DROPOUT]
    history = [*searched("random", 20), Trial(point={"lr": "1e-3"}, state="done", score=0.0)]
    assert any(not 1e-4 <= float(t.point["lr"]) <= 1e-2 for t in history)
    point = propose(narrow, history, method="tpe", seed=0, number=21)
    assert point is not None
    assert 1e-4 <= float(point["lr"]) <= 1e-2


def test_ordered_lists_are_given_back_as_they_were_written() -> None:
    space = [Dimension(key="rank", choices=("32", "8", "16", "1e2"))]
    points = [propose(space, [], method="random", seed=0, number=n) for n in range(30)]
    assert {p["rank"] for p in points if p} == {"32", "8", "16", "1e2"}


def test_an_interval_without_a_number_left_ends_the_search() -> None:
    """With four digits there are two numbers in it; a job twice would never be counted as new."""
    space = [Dimension(key="lr", low=1.0, high=1.00001)]
    both = [Trial(point={"lr": text}, state="done", score=1.0) for text in ("1.0", "1.00001")]
    assert propose(space, both, method="tpe", seed=0, number=2) is None
    wider = [Dimension(key="lr", low=1.0, high=1.003)]
    history: list[Trial] = []
    while (point := propose(wider, history, method="tpe", seed=0, number=len(history))) is not None:
        history.append(Trial(point=point, state="done", score=float(point["lr"])))
    assert sorted(t.point["lr"] for t in history) == ["1.0", "1.001", "1.002", "1.003"]


@pytest.mark.parametrize("method", ["tpe", "gp"])
def test_steps_are_kept_to(method: str) -> None:
    space = [
        Dimension(key="lora.rank", low=8, high=30, step=8, integer=True),
        Dimension(key="lora.dropout", low=0.0, high=0.25, step=0.1),
        Dimension(key="lr", low=0.1, high=1e4, step=0.1),
    ]
    history: list[Trial] = [
        Trial(point={"lora.rank": "9", "lora.dropout": "0.1", "lr": "0.1"}, state="done", score=0.0)
    ]
    for number in range(1, 14):
        point = propose(space, history, method=method, seed=0, number=number)
        assert point is not None
        history.append(Trial(point=point, state="done", score=float(point["lora.rank"])))
    drawn = [trial.point for trial in history[1:]]
    assert {p["lora.rank"] for p in drawn} <= {"8", "16", "24"}
    assert {p["lora.dropout"] for p in drawn} <= {"0.0", "0.1", "0.2"}
    assert all(len(p["lr"]) <= 7 for p in drawn)  # 12.3, and no 12.299999999999999


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    unscored = [Trial(point={"lr": "0.001"}, state="done")]
    with pytest.raises(ConfigError, match=r"data\.valid=FILE, or take sweep\.search=random"):
        propose([LR], unscored, method="tpe", seed=0, number=1)
    assert propose([LR], unscored, method="random", seed=0, number=1) is not None
    real = study.find_spec
    monkeypatch.setattr(study, "find_spec", lambda n: None if n == "scipy" else real(n))
    assert propose([LR], [], method="tpe", seed=0, number=1) is not None
    with pytest.raises(ConfigError, match=r"gp needs scipy: pip install 'graftlab\[sweep\]'"):
        propose([LR], [], method="gp", seed=0, number=1)
