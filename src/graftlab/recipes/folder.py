"""The result folder: it appears whole or not at all, and never in place of something else.

OUT/
  train.jsonl valid.jsonl (test.jsonl)   {"messages": [...], "tools"?, "source", "labels"?}
  rejects.jsonl                          what was dropped: step, reason, detail, origin, record
  manifest.json                          inputs, steps, counts
  report.html                            what it is like, to be looked at
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftlab.data.prepared import MANIFEST
from graftlab.errors import ConfigError, GraftlabError
from graftlab.files.checksums import CHECKSUMS, SUFFIX
from graftlab.files.disk import FULL
from graftlab.files.ownership import is_everybodys, unwritable
from graftlab.files.reading import UnreadableError, read_json

OURS = (
    *("train.jsonl", "valid.jsonl", "test.jsonl", "rejects.jsonl", MANIFEST, "report.html"),
    *(CHECKSUMS, f"{MANIFEST}{SUFFIX}"),
)
"""What a result may consist of."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)


def check_out(out: str | None) -> Path:
    """The result's folder. Raises ConfigError where it is not given or holds something else."""
    if not out:
        raise ConfigError("out is not set: say where the data set goes, as in out=data/mine.")
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out={out} is a file; give a folder that may be made.")
    if folder.is_dir() and any(folder.iterdir()) and not _is_prepared(folder):
        raise ConfigError(
            f"out={out} holds other files than a prepared data set: give a new folder."
        )
    if is_everybodys(folder) or folder.resolve() == Path.cwd():
        raise ConfigError(f"out={out} is no folder of its own: give a new one.")
    return folder


def _is_prepared(folder: Path) -> bool:
    """Whether its manifest is one of ours: other programs write a `manifest.json`, too. A damaged
    one is, where the checksums beside it are ours: such a folder is to be prepared again.
    """
    return _holds(folder / MANIFEST, {"key", "result", "seed"}) or _holds(
        folder / CHECKSUMS, {MANIFEST, "train.jsonl", "valid.jsonl"}
    )


def _holds(file: Path, keys: set[str]) -> bool:
    try:
        found = read_json(file)
    except (OSError, UnreadableError):
        return False
    return isinstance(found, dict) and keys <= found.keys()


@contextmanager
def writing_result(target: Path) -> Iterator[None]:
    """What the system says of a result that cannot be written, as an error for people.

    A full disk raises GraftlabError, a folder that cannot be made ConfigError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise GraftlabError(
                f"{target} could not be made: {error.strerror}. Beside it, there must be room for "
                "the result, and for the records up to three times more."
            ) from error
        if error.errno in _REFUSED:
            raise unwritable(f"out={target}", error) from error
        raise
