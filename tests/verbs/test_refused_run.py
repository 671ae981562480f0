"""A run that is refused before it begins leaves nothing, but for what its message points to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kept_logging import kept_logging
from knocking import knock

PAIR = {"prompt": "Who?", "chosen": "Me.", "rejected": "You."}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    rows = [{**PAIR, "prompt": f"Who is {n}?"} for n in range(9)]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with kept_logging():
        yield tmp_path


def test_nothing_is_left_of_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(here.rglob("*"))
    refused = knock(capsys, "train", "data=jsonl", "data.train=pairs.jsonl", "trainer=cpu")
    assert refused.code == 2
    assert "objective=dpo learns from pairs" in refused.err
    assert sorted(here.rglob("*")) == before


def test_rows_that_were_refused_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("pairs.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n{}")
    line = ["data=jsonl", "data.train=pairs.jsonl", "data.on_invalid=skip", "trainer=cpu"]
    assert knock(capsys, "train", *line).code == 2
    (rejects,) = here.glob("outputs/*/*/rejects.jsonl")
    assert len(rejects.read_text().splitlines()) == 1


def test_a_folder_that_was_there_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    line = ["data=jsonl", "data.train=pairs.jsonl", "trainer=cpu"]
    assert knock(capsys, "train", *line, "hydra.run.dir=mine").code == 2
    assert Path("mine").is_dir()
    assert knock(capsys, "train", *line, "hydra.run.dir=mine/deep/run").code == 2
    assert not Path("mine/deep").exists()
