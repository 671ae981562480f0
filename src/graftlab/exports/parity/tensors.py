"""What the files of a merged model tell of why it answers otherwise: tensor by tensor.

Each mistake leaves its own mark: rows in another order, blocks of sixteen values, a head of its own
where it was tied, tensors that no adapter changes and that are not the base's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from graftlab.errors import listed
from graftlab.exports.merge import Merge
from graftlab.exports.shards import Entry

BLOCK, CODES = 64, 16
"""A block of codes of four bits has sixteen values at most."""


@dataclass(slots=True)
class _Marks:
    """Names of tensors by what is wrong with them."""

    untied: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    """Not the base's, where no adapter changes them."""
    changed: list[str] = field(default_factory=list)


def told_by_tensors(merge: Merge, dtype: str, folder: Path) -> list[str]:
    """Why the model in `folder` is not that of the merge, in sentences; [] where it is."""
    marks = _Marks()
    for name, entries in merge.shards(dtype).items():
        if (folder / name).is_file():
            _look(marks, merge, entries, folder / name)
        else:
            marks.missing += entries
    told = {
        "{} is there, and the head was tied to the embedding: the tie is lost": marks.untied,
        "{} is missing": marks.missing,
        "the rows of {} are in another order, as rotary halves and pairs are": marks.order,
        "{} was rounded to four bits again": marks.codes,
        "{} is not the base's, and no adapter changes it: it is another base": marks.unchanged,
    }
    found = [text.format(listed(names, 3)) for text, names in told.items() if names]
    if marks.changed and not found:
        found.append(f"{listed(marks.changed, 3)} is not the base with the adapter in it")
    return found


def _look(marks: _Marks, merge: Merge, entries: Mapping[str, Entry], file: Path) -> None:
    with safe_open(file, framework="pt") as written:
        names = set(written.keys())
        marks.untied += sorted(names - entries.keys())
        marks.missing += sorted(entries.keys() - names)
        for name, wanted in merge.tensors(
            file.name, {n: e for n, e in entries.items() if n in names}
        ):
            found = written.get_tensor(name)
            if torch.equal(found, wanted):
                continue
            if _same_rows(found, wanted):
                marks.order.append(name)
            elif _in_codes(found) and not _in_codes(wanted):
                marks.codes.append(name)
            else:
                (marks.changed if name in merge.changes else marks.unchanged).append(name)


def _same_rows(found: Tensor, wanted: Tensor) -> bool:
    """Whether both hold the same rows, in whatever order."""
    if found.shape != wanted.shape or found.ndim != 2:
        return False
    marks = torch.linspace(1, 2, found.shape[1], dtype=torch.float64)
    ours, theirs = ((each.double() @ marks).sort().values for each in (found, wanted))
    return torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def _in_codes(tensor: Tensor) -> bool:
    """Whether every block of a matrix has so few values as codes of four bits give."""
    if tensor.ndim != 2 or tensor.numel() < BLOCK:
        return False
    whole = tensor.numel() // BLOCK * BLOCK
    blocks = tensor.flatten()[:whole].view(-1, BLOCK).sort(dim=1).values
    return bool(((blocks.diff(dim=1) != 0).sum(1) < CODES).all())
