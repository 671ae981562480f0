"""What makes a job the one it is, and what it and its sweep are called."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from graftlab import __version__
from graftlab.data.prepared import PreparedData
from graftlab.data.source import DataSpec
from graftlab.registry import place_of
from graftlab.tracking.identity import identity

LONGEST = 60
"""Letters of a folder's name behind its number."""


def job_identity(config: Mapping[str, Any], data: str) -> str:
    """Hash of all that changes a job's result: configuration, data, version of this package.

    `config` is `registry.dump(spec)`, `data` what `data_identity` says. Not of where it runs, what
    it is called, what it may cost or how the sweep around it is searched.
    """
    return _hash([identity(dict(config)), data, __version__])


def data_identity(data: DataSpec) -> str:
    """Hash of the content of every file the data comes from; of nothing where there is none."""
    if isinstance(data, PreparedData) and data.recipe is not None:
        return _hash([str(data.key)])  # of all that decides what will be read, made yet or not
    train, valid = data.files() if data.has_files else ([], [])
    return _hash([_content(file) for file in (*train, *valid)])


def sweep_name(
    config: Mapping[str, Any], keys: Collection[str], *, typed: Mapping[str, str] | None = None
) -> str:
    """A folder's name from the configuration without the swept values, and the swept keys.

    `typed` are keys that hold for every job: those of a swept group count as they were typed.
    """
    plain = dict(config)
    for key in keys:
        plain = _without(plain, place_of(key).split("."))
    if any(key.startswith("data.") for key in keys):
        plain = _without(plain, ["data", "key"])  # a hash of what the recipe is given
    starts = tuple(f"{place_of(key)}." for key in keys)
    inside = {k: v for k, v in (typed or {}).items() if k.startswith(starts)}
    return f"{slug('-'.join(map(_short, sorted(keys))))}-{identity(plain | inside)[:8]}"


def _without(config: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """A configuration without a key, or a whole group."""
    first, *rest = path
    inner = config.get(first)
    if not rest:
        return {key: value for key, value in config.items() if key != first}
    return {**config, first: _without(inner, rest)} if isinstance(inner, dict) else config


def job_label(point: Mapping[str, str]) -> str:
    """The swept values for a folder's name: `lr1e-4_rank8`."""
    return slug("_".join(f"{_short(key)}{value}" for key, value in point.items()))


def slug(text: str) -> str:
    """`text` as a part of a file name that needs no quotes anywhere, 60 letters at most.

    What is cut off or left out is told apart by a hash.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "", text)
    if len(plain) > LONGEST:
        plain = f"{plain[: LONGEST - 7]}-{_hash([text])[:6]}"
    return plain


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _hash(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _content(file: Path) -> str:
    status = file.stat()
    return _digest(str(file.resolve()), status.st_size, status.st_mtime_ns)


@cache
def _digest(path: str, size: int, modified: int) -> str:
    """Hash of a file's bytes, computed once as long as size and time stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
