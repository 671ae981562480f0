"""Token sets on disk: found by the hash of all that made them, shared by every run.

    CACHE/tokens-<key>/    meta.json  input_ids.npy  labels.npy  offsets.npy  parts.npy  sources.npy
                           segments.npy, segment_offsets.npy, weights.npy: where there are any
                           checksums.json, which every reading checks

A set grows in a folder of its own and is renamed into place, so a reader never sees half of one and
two writers at once leave one whole set. Reading maps the files into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np

from graftlab.files.building import scratch_folder
from graftlab.files.checksums import CHECKSUMS, DamagedError, check_folder, write_checksums
from graftlab.files.reading import read_json
from graftlab.types import Conversation

_ABANDONED = 24 * 3600
"""Seconds after which a draft of another host that nobody writes to is one of a killed process."""

ARRAYS = ("input_ids", "labels", "offsets", "parts", "sources")
"""What every set has."""
OPTIONAL = ("segments", "segment_offsets", "weights")
"""What a set has where one of its documents does."""


def cache_key(
    conversations: Iterable[Conversation], tokenizer_fingerprint: str, *trained: str
) -> str:
    """Hash of the conversations' content, the tokenizer with its template, and this code.

    `trained` says what of the conversations is.
    """
    said = " ".join([_code_hash(), tokenizer_fingerprint, *trained])
    digest = hashlib.sha256(said.encode())
    for conversation in conversations:
        sides = (conversation.messages, conversation.rejected)
        content = [[message.as_row() for message in messages] for messages in sides]
        told = [content, conversation.tools, conversation.desirable]
        digest.update(json.dumps(told, default=str).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:32]


@cache
def _code_hash() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def read_arrays(folder: Path, key: str) -> tuple[dict[str, np.ndarray], str] | None:
    """The memory-mapped arrays and fingerprint stored under `key`; None where there are none.

    Raises DamagedError for a set that is not as it was stored.
    """
    home = folder / f"tokens-{key}"
    if not home.is_dir():
        return None
    try:
        if not check_folder(home):
            raise DamagedError(f"{home} has no {CHECKSUMS}")
        meta = read_json(home / "meta.json")
        arrays = {
            name: np.load(home / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in (*ARRAYS, *(name for name in OPTIONAL if name in meta["shapes"]))
        }
        whole = {name: list(array.shape) for name, array in arrays.items()} == meta["shapes"]
    except DamagedError:
        raise
    except (OSError, EOFError, ValueError, KeyError):
        return None
    return (arrays, str(meta["fingerprint"])) if whole else None


def read_or_tell(
    folder: Path, key: str
) -> tuple[tuple[dict[str, np.ndarray], str] | None, str | None]:
    """What is stored under `key`, or what to say of it where it is damaged."""
    try:
        return read_arrays(folder, key), None
    except DamagedError as error:
        return None, f"{error}: the tokens are made anew."


@contextmanager
def drafting(folder: Path, key: str) -> Iterator[Path | None]:
    """A folder in which a set can grow until it is published, and which is gone afterwards.

    None where the disk gives none. A process that is killed leaves its draft, which a later one
    clears; one of another host, once nothing was written to it for a day.
    """
    draft: Path | None = None
    with ExitStack() as stack:
        with suppress(OSError):
            home = folder / f"tokens-{key}"
            draft = stack.enter_context(scratch_folder(home, abandoned=_ABANDONED))
        yield draft


def publish(
    draft: Path, folder: Path, key: str, arrays: dict[str, np.ndarray], fingerprint: str
) -> None:
    """Make `draft` the set of `key`; arrays that do not lie in it yet are written.

    A whole set that another process stored meanwhile stays. Raises OSError where none is stored.
    """
    home = folder / f"tokens-{key}"
    for name, array in arrays.items():
        if not isinstance(array, np.memmap):
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    (draft / "meta.json").write_text(json.dumps({"fingerprint": fingerprint, "shapes": shapes}))
    write_checksums(draft)
    try:
        os.rename(draft, home)  # which fails where a folder lies that is not empty
        return
    except OSError:
        if not home.is_dir():
            raise
    if _is_whole(folder, key):  # another process was first
        return
    # What is damaged is renamed away before it goes: removed in its place, it could be the set that
    # another process has just stored, which somebody reads.
    with scratch_folder(home, abandoned=_ABANDONED) as aside:
        with suppress(OSError):
            os.rename(home, aside)
        with suppress(OSError):
            os.rename(draft, home)


def _is_whole(folder: Path, key: str) -> bool:
    try:
        return read_arrays(folder, key) is not None
    except DamagedError:
        return False
