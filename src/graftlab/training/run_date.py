"""The date of a run: what a chat template is told that asks for it, today or when it goes on."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from graftlab.errors import ResumeError
from graftlab.tracking.folder import RunFolder
from graftlab.training.checkpoint import CheckpointStore

if TYPE_CHECKING:
    from graftlab.training.spec import TrainSpec


def resolve_date(spec: TrainSpec, folder: RunFolder) -> None:
    """Set the date on which the run began: that of the run in `folder`, or today.

    Raises ResumeError where another one is asked for.
    """
    begun = _begun(folder)
    if begun is not None and spec.date not in (None, begun):
        raise ResumeError(
            f"{folder.path} began with date={begun}, and its data was rendered so: leave date out."
        )
    spec.date = begun or spec.date or date.today().isoformat()


def _begun(folder: RunFolder) -> str | None:
    """The date of the run that has checkpoints here; None where there is none."""
    store = CheckpointStore(folder.checkpoints)
    if not store.saved():
        return None
    try:
        config = folder.config()
    except (OSError, ValueError):  # a checkpoint holds the same
        last = store.newest_checked()
        config = last.load(mapped=True)["run"] if last is not None else {}
    return config.get("date")
