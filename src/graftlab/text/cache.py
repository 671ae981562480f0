"""Token sets on disk: found by the hash of all that made them, shared by every run.

    CACHE/tokens-<key>/    meta.json  input_ids.npy  labels.npy  offsets.npy  parts.npy  sources.npy

A set is written to a folder of its own and renamed into place, so a reader never sees half of one
and two writers at once leave one whole set. Reading maps the files into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from graftlab.types import Conversation

ARRAYS = ("input_ids", "labels", "offsets", "parts", "sources")


def default_cache() -> Path:
    """`$GRAFTLAB_CACHE`, or `~/.cache/graftlab`."""
    return Path(os.environ.get("GRAFTLAB_CACHE") or Path.home() / ".cache" / "graftlab")


def cache_key(
    conversations: Iterable[Conversation], tokenizer_fingerprint: str, train_turns: str
) -> str:
    """Hash of the conversations' content, the tokenizer with its template, and this code."""
    digest = hashlib.sha256(f"{_code_hash()} {tokenizer_fingerprint} {train_turns}".encode())
    for conversation in conversations:
        content = [[m.role, m.content] for m in conversation.messages]
        digest.update(json.dumps([content, conversation.tools]).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:32]


@cache
def _code_hash() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def read_arrays(folder: Path, key: str) -> tuple[dict[str, np.ndarray], str] | None:
    """The memory-mapped arrays and fingerprint stored under `key`; None where there are none."""
    home = folder / f"tokens-{key}"
    try:
        meta = json.loads((home / "meta.json").read_text())
        arrays = {
            name: np.load(home / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ARRAYS
        }
        whole = {name: list(array.shape) for name, array in arrays.items()} == meta["shapes"]
    except (OSError, EOFError, ValueError, KeyError):
        return None
    return (arrays, str(meta["fingerprint"])) if whole else None


def write_arrays(folder: Path, key: str, arrays: dict[str, np.ndarray], fingerprint: str) -> None:
    """Store arrays under `key`; a disk that cannot take them costs only the next run's time."""
    home = folder / f"tokens-{key}"
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    draft: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=f".tokens-{key}-", dir=folder)
        for name, array in arrays.items():
            np.save(Path(draft) / f"{name}.npy", array, allow_pickle=False)
        meta = {"fingerprint": fingerprint, "shapes": shapes}
        (Path(draft) / "meta.json").write_text(json.dumps(meta))
        if home.exists() and read_arrays(folder, key) is None:
            shutil.rmtree(home, ignore_errors=True)
        # Renaming onto a folder that is not empty fails: another process was first.
        os.rename(draft, home)
    except OSError:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
