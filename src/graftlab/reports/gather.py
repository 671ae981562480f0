"""Find run folders and read them, whatever state they are in.

A folder that cannot be read is a run in the state `unreadable`, never left out. What a sweep's
ledger knows beyond its folders comes in as `jobs`: folder -> `ReportedJob`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError
from graftlab.files.checksums import DamagedError, check_beginning, check_member
from graftlab.files.reading import read_json
from graftlab.reports.run import ReportedRun
from graftlab.reports.samples import read_samples
from graftlab.reports.values import is_number
from graftlab.sweeps.ledger import FILE, Ledger
from graftlab.tracking.folder import read_config
from graftlab.tracking.history import History, Row
from graftlab.tracking.identity import flatten
from graftlab.tracking.result import Result

ADAPTERS = ("adapter", "adapter-final")
"""Folders inside a run that hold a `run.yaml` of their own."""
CHANGED = "changed"
"""In place of what a card says, where it is not as it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedJob:
    """What a sweep's ledger knows of one job."""

    state: str
    """waiting, running, paused, done, failed or pruned."""
    swept: Mapping[str, Any] = field(default_factory=dict)
    """Key -> the value that the sweep gave it."""
    error: str | None = None
    """The last line of what ended it."""


def known_jobs(folders: Sequence[Path]) -> dict[Path, ReportedJob]:
    """Run folder -> its job, of every ledger in, below or right above `folders`."""
    homes = {
        file.parent.resolve()
        for folder in folders
        for file in (*folder.rglob(FILE), *folder.resolve().parent.glob(FILE))
    }
    return {
        home / job.folder: ReportedJob(state=job.state, swept=job.swept, error=job.error)
        for home in sorted(homes)
        for job in Ledger(home).jobs()
    }


def gather(
    folders: Sequence[Path], *, jobs: Mapping[Path, ReportedJob] | None = None
) -> list[ReportedRun]:
    """Every run in or below `folders`, in the order of their paths; numbers sort as numbers.

    Raises ConfigError naming every folder that is not there or holds no run.
    """
    known = {folder.resolve(): job for folder, job in (jobs or {}).items()}
    found: dict[Path, ReportedJob | None] = {}
    problems = []
    for folder in folders:
        runs = [path.resolve() for path in _run_folders(folder)] if folder.is_dir() else []
        root = folder.resolve()
        runs += [path for path in known if path == root or root in path.parents]
        if not folder.is_dir():
            problems.append(f"{folder}: there is no such folder.")
        elif not runs:
            problems.append(f"{folder} holds no run: a run folder has a run.yaml.")
        found |= {path: known.get(path) for path in runs}
    if problems:
        raise ConfigError("\n".join(problems))
    paths = sorted(found, key=_natural)
    return [read(path, name=name, job=found[path]) for path, name in _named(paths)]


def read(folder: Path, *, name: str | None = None, job: ReportedJob | None = None) -> ReportedRun:
    """One run folder; never raises for what lies in it."""
    run = ReportedRun(folder=folder, name=name or folder.name, state="unfinished")
    problems: list[str] = []
    finished = (folder / "result.json").exists()

    def tried(file: str, read_file: Any, default: Any) -> Any:
        try:
            if finished and "/" not in file:
                check_member(folder / file)
            return read_file(folder / file)
        except FileNotFoundError:
            return default
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            problems.append(f"{file} cannot be read: {error}")
            return default

    run.config = flatten(tried("run.yaml", read_config, {}))
    run.rows = tried("train_log.csv", _history, [])
    run.result = tried("result.json", _result, None)
    run.times = tried("time_metrics.json", _json, {})
    run.card = tried("adapter/card.md", _card, {})
    run.traceback = tried("error.txt", lambda file: file.read_text("utf-8", "replace"), None)
    run.samples = tried("samples.md", read_samples, [])
    _judge(run, job, problems)
    return run


def _judge(run: ReportedRun, job: ReportedJob | None, problems: list[str]) -> None:
    """State and reason, from the ledger where there is one, else from the files."""
    last = run.traceback.strip().splitlines()[-1:] if run.traceback else []
    if job is not None:
        run.swept, run.state = job.swept, job.state
        run.reason = job.error or (last[0] if last and job.state == "failed" else None)
    elif last:
        run.state, run.reason = "failed", last[0]
    if run.result is not None and run.state in ("unfinished", "running", "failed"):
        run.state, run.reason = "done", None
    if problems:
        run.state, run.reason = "unreadable", "; ".join(problems)
    elif run.state == "unfinished":
        run.reason = f"no result.json: {_reached(run)}"
    elif run.state == "done" and run.result is not None and run.result.stopped:
        run.reason = f"ended early: {run.result.stopped}"
    elif run.state == "done" and CHANGED in run.card:
        run.reason = f"{run.card[CHANGED]}: nothing is taken from it"


def _reached(run: ReportedRun) -> str:
    """How far an unfinished run came."""
    if not run.rows or run.rows[-1]["step"] == 0:
        return "it ended before the first logged step"
    last = run.rows[-1]
    planned = run.config.get("epochs", "?")
    epochs = f" (epoch {last['epoch']:.2f} of {planned})" if "epoch" in last else ""
    return f"it reached step {last['step']:,}{epochs}"


def _run_folders(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("run.yaml"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.parent.name not in ADAPTERS and not hidden:
            yield file.parent


def _named(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each folder with its name below what all of them share."""
    if len(paths) == 1:
        yield paths[0], paths[0].name
        return
    root = Path(commonpath([path.parent for path in paths])) if paths else Path()
    for path in paths:
        yield path, path.relative_to(root).as_posix()


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """ReportedJob 2 before job 10."""
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in path.parts]


def _history(file: Path) -> list[Row]:
    if not file.exists():
        return []
    check_beginning(file)
    return [row for row in History(file).rows if "step" in row]


def _result(file: Path) -> Result:
    result = Result.read(file)
    for name in ("score", "baseline", "steps", "best_step", "tokens"):
        value = getattr(result, name)
        if not (is_number(value) or value is None):
            raise ValueError(f"{name} is {value!r}, which is no number")
    return result


def _json(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    return content


def _card(file: Path) -> dict[str, str]:
    try:
        check_member(file)
    except DamagedError as error:
        return {CHANGED: str(error)}  # people may write into it: no reason to refuse the run
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = (line[2:].partition(": ") for line in lines if line.startswith("- "))
    return {key: value for key, _, value in pairs}
