"""The result folder: it appears whole or not at all, and never in place of something else.

OUT/
  train.jsonl valid.jsonl (test.jsonl)   {"messages": [...], "tools"?, "source", "labels"?}
  rejects.jsonl                          what was dropped: step, reason, detail, origin, record
  manifest.json                          inputs, steps, counts
  report.html                            what it is like, to be looked at
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftlab.data.prepared import MANIFEST
from graftlab.errors import ConfigError, GraftlabError
from graftlab.files.disk import FULL
from graftlab.recipes.spool import spooling_in


def check_out(out: str | None) -> Path:
    """The result's folder. Raises ConfigError where it is not given or holds something else."""
    if not out:
        raise ConfigError("out is not set: say where the data set goes, as in out=data/mine.")
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out={out} is a file; give a folder that may be made.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise ConfigError(
            f"out={out} holds other files than a prepared data set: give a new folder."
        )
    return folder


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A folder to fill; on success it takes the place of `target`, an earlier result included.

    A process that is killed leaves `.NAME.partial` beside it, which the next one clears. A full
    disk raises GraftlabError.
    """
    draft = target.with_name(f".{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"out={target} cannot be written: {error.strerror}.") from error
    try:
        with spooling_in(draft):
            yield draft
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise GraftlabError(
                f"{target} could not be made: {error.strerror}. Beside it, there must be room for "
                "the result, and for the records up to three times more."
            ) from error
        raise
    for file in draft.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if target.exists():
        before = target.with_name(f".{target.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        os.replace(target, before)
        os.replace(draft, target)
        shutil.rmtree(before)
    else:
        os.replace(draft, target)
