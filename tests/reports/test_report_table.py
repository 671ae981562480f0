"""The report's tables in a terminal: columns that fit, whole words, and the names of the others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from graftlab.reports.compare import Comparison
from graftlab.reports.gather import gather
from graftlab.reports.table import show
from run_folders import write_run

JOB = "000{}-lr=0.0001,rank=16,targets=attn"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Four runs that differ in twelve keys, two of them by their seed alone."""
    root = tmp_path_factory.mktemp("swept")
    for number in range(4):
        place = min(number, 2)
        values: dict[str, Any] = {
            "lr": 1e-4 * (place + 1),
            "lora.rank": 8 * (place + 1),
            "lora.alpha": 8.0 * (place + 2),
            "lora.dropout": 0.1 * place,
            "lora.targets": [["q_proj", "k_proj", "v_proj"][place]],
            "schedule.warmup_ratio": 0.03 * (place + 1),
            "optimizer.weight_decay": 0.01 * place,
            "packing.max_length": 512 * (place + 1),
            "batch_size": place + 1,
            "epochs": place + 1,
            "accumulate": place + 1,
            "seed": number,
        }
        write_run(root / JOB.format(number), values, score=1.2345 + number)
    return Comparison(gather([root]))


def printed(found: Comparison, width: int, **how: Any) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, color_system=None)
    show(found, console, limit=20, **how)
    return console.file.getvalue()  # type: ignore[attr-defined]


def head_of(out: str, name: str) -> list[str]:
    return next(line.split() for line in out.splitlines() if line.split()[:1] == [name])


@pytest.mark.parametrize("width", [60, 80, 100, 140, 260])
def test_no_row_is_folded_however_many_keys(swept: Comparison, width: int) -> None:
    out = printed(swept, width)
    assert max(map(len, out.splitlines())) <= width
    runs = out[: out.index("configurations")].splitlines()
    for number in range(4):
        (row,) = [line for line in runs if line.startswith(f" 000{number}-")]
        assert {f"{1.2345 + number:.4f}", "done"} <= set(row.split())
    table = [line for line in runs if line.startswith(" ") and line.strip(" ─")]
    assert len(table) == 5, "the heads and four runs, a line each"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_columns_without_room_are_named(swept: Comparison, width: int) -> None:
    out = printed(swept, width)
    told = " ".join(out[out.index("Too wide") : out.index("configurations")].split())
    missing = told.removesuffix(".").partition(": ")[2].split(", ")
    kept = head_of(out, "run")
    names = [swept.names[key] for key in swept.keys]
    assert not set(kept) & set(missing)
    assert set(names) <= set(kept) | set(missing)
    assert (set(names) & set(kept) != set()) == (width >= 80)


def test_nothing_is_missing_from_a_terminal_that_is_wide(swept: Comparison) -> None:
    out = printed(swept, 260)
    assert "Too wide" not in out
    assert {swept.names[key] for key in swept.keys} <= set(head_of(out, "run"))


@pytest.mark.parametrize("key", ["lora.alpha", "accumulate"])
def test_the_key_that_matters_most_stays(swept: Comparison, key: str) -> None:
    last = [*sorted(set(swept.keys) - {key}), key]
    first = [key, *last[:-1]]
    assert swept.names[key] in head_of(printed(swept, 80, ranked=first), "run")
    assert swept.names[key] not in head_of(printed(swept, 80, ranked=last), "run")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_configurations_are_folded_between_words(swept: Comparison, width: int) -> None:
    out = printed(swept, width)
    cells = out[out.index("configurations") :].split()
    assert {"weight_decay=0.01", "max_length=1024", "warmup_ratio=0.06"} <= set(cells)


def test_names_are_cut_only_where_they_stay_distinct(tmp_path: Path) -> None:
    for number, score in enumerate((1.0, 2.0)):
        write_run(tmp_path / f"a-name-that-ends-otherwise-{number}", {"lr": score}, score=score)
    out = printed(Comparison(gather([tmp_path])), 100)
    assert "a-name-that-ends-otherwise-0" in out
    assert "a-name-that-ends-otherwise-1" in out
