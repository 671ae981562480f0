"""What differs, what belongs together, and that table, maps, front and winner tell one story."""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest

from graftlab.reports.compare import Comparison, front
from graftlab.reports.curves import points_each, reward_curves, train_curve, valid_curve
from graftlab.reports.export import rows, write_csv, write_parquet
from graftlab.reports.gather import gather
from graftlab.reports.importance import LEAST, importance
from graftlab.reports.payload import payload
from graftlab.reports.sections import runs as runs_table
from graftlab.reports.table import best_first, standings
from graftlab.reports.values import Bins, in_order, short_names, written
from graftlab.reports.winner import winner
from run_folders import grid, result_of, write_run

AXES = {"lr": [1e-4, 1e-3, 1e-2], "lora.rank": [4, 16], "lora.targets": ["attn", "attn-mlp"]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = tmp_path_factory.mktemp("sweep")
    grid(root, AXES, seeds=2)
    return Comparison(gather([root]))


def test_exactly_what_was_swept_differs(swept: Comparison) -> None:
    assert swept.keys == ["lora.rank", "lora.targets", "lr", "seed"]
    assert swept.parameters == ["lora.rank", "lora.targets", "lr"]
    assert swept.names["lora.rank"] == "rank"
    assert len(swept.runs) == 24
    assert len(swept.points) == 12
    assert {len(point.scores) for point in swept.points} == {2}


def test_what_decides_nothing_does_not_differ(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {"name": "one", "max_minutes": 3.0, "machine.price": 1.0})
    write_run(tmp_path / "1", {"name": "two", "budget.max_cost": 5.0})
    assert Comparison(gather([tmp_path])).keys == []


def test_keys_that_change_together_are_one_parameter(tmp_path: Path) -> None:
    for n in range(4):
        values = {"lora.rank": 4 << n, "lora.alpha": 8.0 * (n + 1), "lr": 1e-3 * (1 + n % 2)}
        write_run(tmp_path / str(n), values, score=1 + n)
    found = Comparison(gather([tmp_path]))
    assert set(found.keys) == {"lora.rank", "lora.alpha", "lr"}
    assert len(found.parameters) == 2
    assert "lr" in found.parameters


def test_maps_and_winner_agree_with_the_csv(swept: Comparison, tmp_path: Path) -> None:
    """Both worked out again from `runs.csv`, by other means."""
    with write_csv(swept, tmp_path).open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 24
    by_point: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in table:
        by_point[row["lr"], row["lora.rank"], row["lora.targets"]].append(float(row["score"]))
    means = {point: fmean(scores) for point, scores in by_point.items()}
    best = min(means, key=lambda point: means[point])
    assert swept.winner is not None
    run = swept.winner.runs[0]
    assert (str(run.value("lr")), str(run.value("lora.rank")), run.value("lora.targets")) == best
    maps = {m.keys: m for m in swept.heat_maps(swept.parameters)}
    assert len(maps) == 3
    told = maps["lora.rank", "lr"]
    for x, rank in enumerate(told.labels[0]):
        for y, lr in enumerate(told.labels[1]):
            cell = [v for p, v in means.items() if float(p[0]) == float(lr) and p[1] == rank]
            assert told.points[y][x] == len(cell) == 2
            assert told.means[y][x] == pytest.approx(fmean(cell))


def test_parquet_holds_what_the_csv_does(swept: Comparison, tmp_path: Path) -> None:
    from pyarrow import parquet

    path = write_parquet(swept, tmp_path)
    assert path is not None
    assert parquet.read_table(path).to_pylist() == rows(swept)


def test_mixed_columns_are_written_too(tmp_path: Path) -> None:
    from pyarrow import parquet

    write_run(tmp_path / "0", {"lora.targets": "attn", "lora.dropout": 0.0, "max_steps": None})
    write_run(tmp_path / "1", {"lora.targets": ["q_proj"], "lora.dropout": 0.5, "max_steps": 9})
    found = Comparison(gather([tmp_path]))
    path = write_parquet(found, tmp_path)
    assert path is not None
    table = parquet.read_table(path).to_pydict()
    assert table["lora.targets"] == ["attn", '["q_proj"]']
    assert table["max_steps"] == [None, 9]


def test_only_finished_runs_are_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {"lr": 1e-3}, score=2.0)
    write_run(tmp_path / "1", {"lr": 2e-3}, score=1.0, finished=False)
    found = Comparison(gather([tmp_path]))
    assert found.winner is not None
    assert found.winner.runs[0].name == "0"
    assert found.sentence().startswith("Only one configuration is finished.")


def test_other_validation_data_forbids_a_winner(tmp_path: Path) -> None:
    for n, data in enumerate(["96 documents, hash aa", "96 documents, hash bb"]):
        write_run(tmp_path / str(n), {"lr": 1e-3 * (n + 1)}, score=1.0 + n, data=data)
    found = Comparison(gather([tmp_path]))
    assert found.verdict is None
    assert found.winner is None
    assert "validated on different data" in found.sentence()


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[1.0, 1.1, 1.05], [2.0, 2.1, 2.06]], "The winner is lr=0.001: 1.0500"),
        ([[1.0, 1.1, 1.05], [1.03, 1.09, 1.1]], "not distinguishable from the other: about"),
        ([[1.0], [2.0]], "single runs say nothing of chance"),
        ([[1.0, 1.0], [1.0, 1.0]], "too small for any affordable number of seeds"),
    ],
)
def test_the_sentence_claims_what_the_interval_allows(
    scores: list[list[float]], said: str, tmp_path: Path
) -> None:
    for point, replicates in enumerate(scores):
        for seed, score in enumerate(replicates):
            values = {"lr": 1e-3 * (point + 1), "seed": seed}
            write_run(tmp_path / f"{point}-{seed}", values, score=score)
    assert said in Comparison(gather([tmp_path])).sentence()


def test_the_front_is_what_nothing_beats(swept: Comparison) -> None:
    dice = random.Random(2)
    for run in swept.runs:
        run.times = {"train_seconds": dice.uniform(10, 100)}
    edge = front(swept.runs, "seconds")
    beaten = [
        run
        for run in swept.runs
        if any(o.seconds < run.seconds and o.score < run.score for o in swept.runs)  # type: ignore[operator]
    ]
    assert {id(run) for run in edge} == {id(r) for r in swept.runs} - {id(r) for r in beaten}
    assert 1 < len(edge) < len(swept.runs)
    assert edge == sorted(edge, key=lambda run: run.seconds or 0)


def test_importance_finds_what_matters(tmp_path: Path) -> None:
    """Score depends on lr alone; 27 points."""
    n = 0
    for lr in (1e-4, 1e-3, 1e-2):
        for rank in (4, 8, 16):
            for dropout in (0.0, 0.1, 0.2):
                values = {"lr": lr, "lora.rank": rank, "lora.dropout": dropout}
                score = {1e-4: 3.0, 1e-3: 1.0, 1e-2: 2.0}[lr] + 0.001 * n
                write_run(tmp_path / str(n), values, score=score)
                n += 1
    found = Comparison(gather([tmp_path]))
    told = importance(found.points, found.parameters)
    assert next(iter(told.explained)) == "lr"
    assert told.explained["lr"] > 0.9
    assert sum(told.explained.values()) == pytest.approx(1)
    assert told == importance(found.points, found.parameters)
    few = importance(found.points[: LEAST - 1], ["lr"])
    assert not few.explained
    assert "Too few runs" in str(few.note)
    assert "at least 9" in str(importance(found.points[:8], found.parameters).note)


def test_nothing_matters_where_all_scores_are_equal(tmp_path: Path) -> None:
    for n in range(9):
        write_run(tmp_path / str(n), {"lr": 1e-3 * (n + 1)}, score=1.0)
    found = Comparison(gather([tmp_path]))
    assert "no key matters" in str(importance(found.points, found.parameters).note)


def test_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    (run,) = gather([write_run(tmp_path / "0", steps=600)])
    train, valid = train_curve(run, most=50), valid_curve(run, most=50)
    assert len(train["loss"]) == len(train["tokens"]) == 50
    assert (train["step"][0], train["step"][-1]) == (1, 600)
    assert valid["step"][0] == 0
    assert valid["loss"][0] == 4.0
    raw = [row["loss"] for row in run.rows if "loss" in row]
    rough = fmean(abs(a - b) for a, b in pairwise(raw))
    whole = train_curve(run, most=1000)["loss"]
    assert fmean(abs(a - b) for a, b in pairwise(whole)) < rough / 5
    assert points_each(500) * 500 <= 60_000
    assert points_each(2) == 400


def test_values_are_written_short_and_in_order() -> None:
    assert in_order([10, 2, "b", None, 2, "a"]) == [2, 10, "a", "b", None]
    assert [written(v) for v in (1e-4, True, None, [1, "a"])] == [
        "0.0001",
        "true",
        "null",
        '[1, "a"]',
    ]
    assert short_names(["a.x", "b.x", "c.y"]) == {"a.x": "a.x", "b.x": "b.x", "c.y": "y"}


def test_many_numbers_are_put_into_ranges() -> None:
    values = [10 ** (n / 20) for n in range(100)]
    bins = Bins(values)
    places = [bins.place(value) for value in values]
    assert places == sorted(places)
    assert set(places) == set(range(len(bins.labels))) == set(range(8))
    assert Bins([3, 1, 2]).place(3) == 2


def test_rows_are_json_ready(swept: Comparison) -> None:
    json.dumps(rows(swept), allow_nan=False)


def test_runs_that_only_show_or_keep_other_things_are_replicates(tmp_path: Path) -> None:
    idle = {"callbacks.progress": False, "trainer.log_every": 7, "checkpoint.keep": 5}
    write_run(tmp_path / "a", {"seed": 0})
    write_run(tmp_path / "b", {"seed": 1, **idle})
    found = Comparison(gather([tmp_path]))
    assert found.keys == ["seed"]
    assert [point.interval.n for point in found.points] == [2]


def test_runs_judged_by_different_losses_have_no_winner(tmp_path: Path) -> None:
    for n, measure in enumerate(["DPO sigmoid loss per pair", "DPO ipo loss per pair"] * 2):
        write_run(tmp_path / str(n), {"lr": 1e-3 * (n + 1)}, score=1.0 + n, measure=measure)
    found = Comparison(gather([tmp_path]))
    assert found.verdict is None
    assert "2 runs by DPO ipo loss per pair" in found.sentence()
    alike = Comparison([run for run in gather([tmp_path]) if "ipo" in str(run.measure)])
    assert alike.verdict is not None
    assert "2.0000 DPO ipo loss per pair over 1 run" in alike.sentence()


def test_rewards_have_curves_and_a_section_of_their_own(tmp_path: Path) -> None:
    from graftlab.reports.page import page

    write_run(tmp_path / "plain", {"lr": 1e-3})
    plain = Comparison(gather([tmp_path / "plain"]))
    none = importance(plain.points, plain.parameters)
    assert reward_curves(plain.runs[0], most=50) == {}
    assert 'id="rewards"' not in page(plain, none, library="")
    write_run(tmp_path / "dpo", {"lr": 2e-3}, steps=200, rewards=True)
    both = Comparison(gather([tmp_path]))
    run = next(run for run in both.runs if run.name == "dpo")
    curves = reward_curves(run, most=50)
    assert curves.keys() > {"reward_margin", "reward_accuracy"}
    margin = curves["reward_margin"]
    assert len(margin["loss"]) == len(margin["step"]) == 50
    assert margin["loss"][-1] > 0.9  # smoothed, and 1 at the last step
    assert curves["rewards_chosen"]["loss"][-1] < -0.9
    assert 'id="rewards"' in page(both, none, library="")


def test_runs_compared_by_a_measure_of_which_more_is_better(tmp_path: Path) -> None:
    """The one with the highest share is the best, though its loss is the worst."""
    by = {"ranked_by": "number/pct_right", "better": "more"}
    base = {"valid/number/pct_right": 10.0}
    for place, (share, loss) in enumerate([(40.0, 1.0), (65.0, 1.5), (0.0, 0.9)]):
        folder = write_run(tmp_path / str(place), {"lora.rank": 2**place}, score=loss)
        result = result_of(loss, folder, ranked=share, base_metrics=base, **by)
        result.write(folder / "result.json")
    found = Comparison(gather([tmp_path]))
    assert [point.runs[0].name for point in found.points] == ["1", "0", "2"]
    assert [run.shown for run in best_first(found)] == [65.0, 40.0, 0.0]
    assert [run.loss for run in best_first(found)] == [1.5, 1.0, 0.9]
    assert {run.baseline for run in found.runs} == {10.0}
    assert found.sentence().startswith("Highest is rank=2: 65.0000 number/pct_right over 1 run.")
    assert [row[2] for row in standings(found)] == ["65.0000", "40.0000", "0.0000"]
    assert winner(found) is found.points[0].runs[0]
    told = {row["run"]: (row["ranked"], row["better"]) for row in rows(found)}
    assert told == {"0": (40.0, "more"), "1": (65.0, "more"), "2": (0.0, "more")}
    page = runs_table(found)
    assert 'class="n score" data-value="65.0">65.0000' in page
    assert 'class="n loss" data-value="1.5">1.5000' in page
    assert (
        payload(found, importance(found.points, found.parameters))["score"]
        == "minus number/pct_right"
    )
