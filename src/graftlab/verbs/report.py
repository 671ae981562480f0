"""The verb `report`: runs and sweeps compared, in the terminal, as files and as one page.

Run as:  graftlab report multirun/NAME
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_range

if TYPE_CHECKING:
    from graftlab.reports.compare import Comparison
    from graftlab.reports.importance import Importance

SWEEPS, RUNS = Path("multirun"), Path("outputs")
SEVERAL = Path("outputs/report")
"""Where a report over several folders is written."""


@dataclass(kw_only=True, slots=True)
class ReportSpec:
    """`graftlab report DIR...`: which runs, and what to make of them."""

    dirs: Any = field(default_factory=list)
    """Run or sweep folders; none takes the newest sweep, or else the newest day of runs."""
    out: str | None = None
    """Where runs.csv and report.html go; null for the folder itself, outputs/report for several."""
    limit: int = 20
    """Rows of the table in the terminal."""
    best: bool = False
    """Show the best configuration as an experiment."""
    write: str | None = None
    """With best=true: the experiment file to write, such as conf/experiment/best.yaml."""
    sync: bool = False
    """Upload the runs' offline W&B files."""

    def __post_init__(self) -> None:
        if isinstance(self.dirs, str):
            self.dirs = [self.dirs]
        require_range("limit", self.limit, least=1)
        if self.write is not None and not self.best:
            raise ConfigError("write=FILE writes the best configuration: add best=true.")


def run(spec: ReportSpec) -> Comparison:
    """Read, compare, show and write; returns the comparison.

    Raises ConfigError for folders without runs, a file that cannot be written, or an upload that
    cannot be.
    """
    from graftlab.console import console, say
    from graftlab.files.locks import hold_beside
    from graftlab.reports.compare import Comparison
    from graftlab.reports.export import CSV
    from graftlab.reports.gather import gather, known_jobs
    from graftlab.reports.importance import importance
    from graftlab.reports.ours import refuse_foreign
    from graftlab.reports.table import show

    folders = [Path(name).expanduser() for name in spec.dirs or []]
    if not folders:
        folders = [newest()]
        say(f"No folder was given: {folders[0]}, the newest.")
    found = Comparison(gather(folders, jobs=known_jobs(folders)))
    told = importance(found.points, found.parameters)
    show(found, console(), limit=spec.limit, ranked=told.ranked(found.parameters))
    out = _out(spec, folders)
    with hold_beside(out / CSV, tell=say):
        refuse_foreign(out)
        for line in _write(found, out, told, folders):
            console().print(line, markup=False, highlight=False, soft_wrap=True)
    if spec.sync:
        from graftlab.tracking.upload import upload

        count = upload([run.folder for run in found.runs])
        say(f"{count} offline W&B runs were handed to wandb sync.")
    return found


def newest() -> Path:
    """The sweep begun last, else the day of the run begun last. Raises ConfigError."""
    for root in (SWEEPS, RUNS):
        if files := [file for file in root.rglob("run.yaml") if _has_begun(file.parent)]:
            last = max(files, key=lambda file: file.stat().st_mtime)
            return Path(*last.parent.parts[:2])
    raise ConfigError(
        "There is nothing in multirun/ or outputs/: give folders, as in graftlab report DIR."
    )


def _has_begun(run: Path) -> bool:
    """Whether a step was taken: a run that was refused leaves nothing to compare."""
    log = run / "train_log.csv"
    return (run / "result.json").is_file() or (log.is_file() and log.stat().st_size > 0)


def _write(found: Comparison, out: Path, told: Importance, folders: list[Path]) -> Iterator[str]:
    """Write every file; yields a line for each, and for each that needs an extra."""
    from graftlab.reports.export import write_csv, write_parquet
    from graftlab.reports.page import write_page
    from graftlab.reports.tuned import tunings

    yield f"{write_csv(found, out)}: every run, with what differs"
    parquet = write_parquet(found, out)
    yield f"{parquet}: the same, typed" if parquet else _needs("runs.parquet", "pyarrow", "parquet")
    page = write_page(found, told, out, tuned=list(tunings(folders)))
    yield f"{page}: for a browser" if page else _needs("report.html", "plotly", "report")


def _needs(file: str, package: str, extra: str) -> str:
    return f"No {file}: it needs {package} (pip install 'graftlab[{extra}]')."


def _out(spec: ReportSpec, folders: list[Path]) -> Path:
    from graftlab.files.ownership import writing_to

    if spec.out is not None:
        out = Path(spec.out).expanduser()
    else:
        out = folders[0] if len(folders) == 1 else SEVERAL
    with writing_to(f"out={out}"):
        out.mkdir(parents=True, exist_ok=True)
    return out
