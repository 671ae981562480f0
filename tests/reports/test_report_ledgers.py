"""A sweep's ledger beside its run folders."""

from __future__ import annotations

from pathlib import Path

from graftlab.reports.gather import gather, known_jobs
from graftlab.sweeps.ledger import Ledger
from run_folders import write_run
from sweep_crew import draft


def test_what_the_ledger_says_is_told_wherever_one_looks_from(tmp_path: Path) -> None:
    sweep = tmp_path / "multirun" / "mine"
    ledger = Ledger(sweep)
    ledger.create()
    jobs = ledger.add([draft(name, label=name) for name in ("a", "b", "c")], launch="x")
    for job in jobs[:2]:
        write_run(sweep / job.folder, finished=job.number == 0)
    ledger.end(0, "done", launch="x", score=1.0)
    ledger.end(1, "pruned", launch="x")
    for start in (sweep, tmp_path, sweep / jobs[1].folder):
        known = known_jobs([start])
        assert [job.state for job in known.values()] == ["done", "pruned", "waiting"]
    runs = gather([sweep], jobs=known_jobs([sweep]))
    assert [(run.name, run.state) for run in runs] == [
        ("0000-a", "done"),
        ("0001-b", "pruned"),
        ("0002-c", "waiting"),
    ]
    assert runs[2].swept == {"name": "c"}


def test_a_rung_is_a_validation_of_a_run_that_got_no_further(tmp_path: Path) -> None:
    from graftlab.reports.curves import valid_curve

    folder = write_run(tmp_path / "run", finished=False)
    log = folder / "train_log.csv"
    header, *rows = log.read_text(encoding="utf-8").splitlines()
    names = header.split(",")
    place = names.index("valid_loss")
    kept = []
    for row in rows:
        cells = row.split(",")
        cells[place] = ""
        kept.append(",".join([*cells, "0.125" if row == rows[-1] else ""]))
    log.write_text("\n".join([f"{header},rung_loss", *kept]) + "\n", encoding="utf-8")
    (run,) = gather([folder])
    assert run.score == 0.125
    assert valid_curve(run, most=100)
