"""What people are told of a sweep: the line before it, the table behind it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from graftlab.sweeps.engine import SweepOutcome
from graftlab.sweeps.jobs import Job
from graftlab.sweeps.launchers.auto import AutoLauncher
from graftlab.sweeps.launchers.joint import JointLauncher
from graftlab.sweeps.launchers.local import LocalLauncher
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.run import _heading, show
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.source import Grid, Search
from graftlab.sweeps.space import Dimension
from graftlab.sweeps.spec import Sweep
from graftlab.tracking.ranking import Ranking
from run_folders import result_of
from sweep_crew import draft


def done(number: int, score: float, **swept: str) -> Job:
    return Job(
        number=number,
        identity=str(number),
        folder=f"{number:04d}",
        swept=swept,
        state="done",
        score=score,
        progress={},
    )


def test_values_of_a_conditional_sweep_stand_under_their_keys(tmp_path: Path, capsys) -> None:
    jobs = [
        done(0, 2.0, lora="attn", lr="0.003"),
        done(1, 1.0, lora="dora", dropout="0.25", lr="0.004"),
    ]
    show(SweepOutcome(tmp_path, jobs, 1.0), Ranking())
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if "dropout" in line)
    rows = {key: next(line for line in lines if key in line) for key in ("0.003", "0.004")}
    for row, lr in ((rows["0.003"], "0.003"), (rows["0.004"], "0.004")):
        assert row.index(lr) == heading.index("lr")
    assert rows["0.004"].index("0.25") == heading.index("dropout")
    assert heading.count("validation loss") == 1


def test_losses_over_few_documents_are_called_so(tmp_path: Path, capsys) -> None:
    jobs = [done(0, 2.0, lr="0.003"), done(1, 1.0, lr="0.004")]
    show(SweepOutcome(tmp_path, jobs, 1.0), Ranking())
    assert "too few" not in capsys.readouterr().out  # nothing is known of them
    for documents in (2, 30):
        folder = tmp_path / jobs[1].folder
        folder.mkdir(exist_ok=True)
        result_of(1.0, folder, valid_documents=documents).write(folder / "result.json")
        show(SweepOutcome(tmp_path, jobs, 1.0), Ranking())
        said = "validation losses are over 2 documents: too few" in capsys.readouterr().out
        assert said == (documents == 2)


def test_the_heading_counts_what_is_done_of_this_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.create()
    ledger.add([draft(f"job {i}") for i in range(4)], launch="earlier")
    for number in range(3):
        ledger.end(number, "done", launch="earlier")

    def said(
        source, jobs: int, threads: int = 2, *, slots: int = 1, launcher: Any = LocalLauncher
    ) -> str:
        order = SimpleNamespace(source=source, folder=tmp_path, jobs=jobs, launcher=launcher())
        return _heading(order, [Slot("cpu", {"OMP_NUM_THREADS": str(threads)})] * slots)

    narrower = Grid([draft(f"job {i}") for i in (1, 3, 7)])
    assert "3 jobs (1 done by earlier launches)" in said(narrower, 3)
    assert "earlier" not in said(Grid([draft("new")]), 1)
    assert "1 job, 1 at once" in said(Grid([draft("new")]), 1)
    for launcher, slots, text in (
        (LocalLauncher, 2, "2 at once"),
        (AutoLauncher, 2, "2 processes"),
        (JointLauncher, 2, "up to 2 trained together in each of 2 processes"),
        (JointLauncher, 1, "up to 4 trained together in one process"),
        (lambda: JointLauncher(most=3), 1, "up to 3 trained together in one process"),
    ):
        assert f"4 jobs, {text} (" in said(Grid([draft("n")]), 4, slots=slots, launcher=launcher)
    assert said(narrower, 3).endswith("2 threads each)")
    assert said(narrower, 3, threads=1).endswith("1 thread each)")
    for key, text in (("name", "9 jobs (3 done"), ("lr", "9 jobs, 1 at once")):
        space = [Dimension(key=key, choices=("a", "b"))]
        search = Search(Sweep(search="random", trials=9), space, lambda point: [])
        assert text in said(search, 9)


def test_jobs_compared_by_a_measure_have_their_loss_beside(tmp_path: Path, capsys) -> None:
    jobs = [done(0, -40.0, lr="0.003"), done(1, -62.5, lr="0.004")]
    folder = tmp_path / jobs[1].folder
    folder.mkdir()
    result_of(1.25, folder).write(folder / "result.json")
    show(SweepOutcome(tmp_path, jobs, 1.0), Ranking("number/pct_right", "more"))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.replace("│", " ").split() for line in lines if "0.00" in line]
    assert rows == [["1", "0.004", "62.5000", "1.2500"], ["0", "0.003", "40.0000", "-"]]
    assert any("best by number/pct_right" in line for line in lines)
