"""Run folders in every state are read, and nothing is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.reports.compare import Comparison
from graftlab.reports.gather import ReportedJob, gather, read
from graftlab.reports.samples import read_samples
from run_folders import write_run


def states(root: Path, jobs: Any = None) -> dict[str, str]:
    return {run.name: run.state for run in gather([root], jobs=jobs)}


def test_every_state_is_read_from_the_folders_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {"lr": 1e-3}, score=1.5)
    write_run(tmp_path / "1", {"lr": 2e-3}, steps=25, finished=False)
    failed = write_run(tmp_path / "2", {"lr": 3e-3}, steps=5, finished=False)
    (failed / "error.txt").write_text("Traceback ...\n  more\nRuntimeError: out of memory\n")
    broken = write_run(tmp_path / "3", {"lr": 4e-3})
    (broken / "result.json").write_text('{"score": 1')
    only = tmp_path / "10"
    only.mkdir()
    (only / "run.yaml").write_text((failed / "run.yaml").read_text())
    runs = gather([tmp_path])
    assert [run.name for run in runs] == ["0", "1", "2", "3", "10"]
    assert [run.state for run in runs] == [
        *("done", "unfinished", "failed", "unreadable", "unfinished")
    ]
    done, killed, crashed, torn, bare = runs
    assert (done.score, done.baseline, done.best_step, done.tokens) == (1.5, 4.0, 40, 40_000)
    assert killed.reason == "no result.json: it reached step 25 (epoch 1.88 of 3)"
    assert killed.best_step == 20
    assert killed.score == min(r["valid_loss"] for r in killed.rows if "valid_loss" in r)
    assert not killed.counts
    assert crashed.reason == "RuntimeError: out of memory"
    assert crashed.traceback is not None
    assert "result.json cannot be read" in str(torn.reason)
    assert bare.reason == "no result.json: it ended before the first logged step"


def test_cost_is_told_only_where_the_price_fits(tmp_path: Path) -> None:
    cheap = {"machine.price": 3.6}
    (run,) = gather([write_run(tmp_path / "0", cheap)])
    assert run.seconds == 20
    assert run.cost == pytest.approx(3.6 * 30 / 3600)  # 20 s of steps, 30 s in all
    run.card = {"device": "NVIDIA H100"}
    assert run.cost is None
    run.config["machine.kind"] = "cuda"
    assert run.cost == pytest.approx(0.03)


def test_a_torn_log_and_a_torn_configuration_are_told(tmp_path: Path) -> None:
    torn = write_run(tmp_path / "a", finished=False)
    with (torn / "train_log.csv").open("a") as file:
        file.write("41,3.1,0.")
    assert read(torn).rows[-1]["step"] == 40
    with (torn / "train_log.csv").open("w") as file:
        file.write("step,loss\n1,abc\n2,0.5\n")
    assert [row["step"] for row in read(torn).rows] == [2]
    (torn / "train_log.csv").write_bytes(b"step,loss\n1,\0\xff\n")
    assert read(torn).rows == []
    (torn / "run.yaml").write_text("lr: [1")
    assert "run.yaml cannot be read" in str(read(torn).reason)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"score": "low"', '"text"', "\0", '{"score": null}']
)
def test_no_result_file_brings_the_report_down(text: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0")
    (folder / "result.json").write_text(text)
    run = read(folder)
    assert run.state == "unreadable"
    assert "result.json cannot be read" in str(run.reason)
    whole = json.loads((write_run(tmp_path / "1") / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**whole, "score": text}))
    assert "score is" in str(read(folder).reason)


def test_a_ledger_knows_more(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(n), {"lr": n + 1.0}, finished=n == 0) for n in range(4)]
    jobs = {
        folders[0]: ReportedJob(state="done", swept={"lr": 1.0}),
        folders[1]: ReportedJob(state="pruned", swept={"lr": 2.0}),
        folders[2]: ReportedJob(state="running", swept={"lr": 3.0}),
        folders[3]: ReportedJob(state="failed", swept={"lr": 4.0}, error="it broke"),
        tmp_path / "4": ReportedJob(state="waiting", swept={"lr": 5.0}),
    }
    assert states(tmp_path, jobs) == {
        "0": "done", "1": "pruned", "2": "running", "3": "failed", "4": "waiting"
    }  # fmt: skip
    found = Comparison(gather([tmp_path], jobs=jobs))
    assert found.keys == ["lr"]
    assert [found.shown(run, "lr") for run in found.runs] == ["1", "2", "3", "4", "5"]
    assert found.runs[3].reason == "it broke"
    assert [len(point.runs) for point in found.points] == [1]


def test_folders_are_read_once_and_named_below_what_they_share(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "0")
    write_run(tmp_path / "b" / "0")
    runs = gather([tmp_path / "a", tmp_path, tmp_path / "b" / "0"])
    assert [run.name for run in runs] == ["a/0", "b/0"]


def test_every_wrong_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "good")
    with pytest.raises(ConfigError) as caught:
        gather([tmp_path / "gone", tmp_path / "good", tmp_path / "empty"])
    assert "gone: there is no such folder" in str(caught.value)
    assert "empty holds no run" in str(caught.value)
    assert "good" not in str(caught.value)


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r"), max_size=60)


@settings(deadline=None)  # the writer belongs to training, and imports torch
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT), max_size=4, unique_by=lambda s: s[0]))
def test_samples_are_read_back_as_they_were_said(said: Any) -> None:
    """Whatever is in them, headings and markup included, up to how lines end."""
    import tempfile

    from run_folders import write_samples

    who = ("prompt", "base", "adapter", "expected")
    raw = [dict(zip(who, sample, strict=True)) for sample in said]
    wanted = [{k: "\n".join(text.splitlines()) for k, text in sample.items()} for sample in raw]
    if len({sample["prompt"] for sample in wanted}) < len(wanted):
        return
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Path(folder) / "samples.md", raw)
        assert read_samples(Path(folder) / "samples.md") == wanted


def test_headings_in_a_sample_are_text(tmp_path: Path) -> None:
    hostile = "## Step 9\n\n**base**\n\n> quoted </script>"
    sample = dict.fromkeys(("prompt", "base", "adapter", "expected"), hostile)
    folder = write_run(tmp_path / "0", samples=[sample])
    assert read(folder).samples == [sample]


def test_no_samples_is_no_mistake(tmp_path: Path) -> None:
    assert read_samples(tmp_path / "samples.md") == []
