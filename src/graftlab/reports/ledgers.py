"""What the ledgers of sweeps know of the runs in some folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graftlab.reports.gather import ReportedJob
from graftlab.sweeps.ledger import FILE, Ledger


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
