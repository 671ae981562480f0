"""Whether a `.fmadapter` can load: every rule it must keep, and which of them it breaks.

The framework answers a broken package with errors that name something else; here each rule has a
name, and all that are broken are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.apple.exports import blob
from graftlab.apple.exports.layout import Layout, layout_of_sizes
from graftlab.apple.exports.package import (
    DRAFT,
    DRAFT_WEIGHTS,
    METADATA,
    NAME,
    SIGNATURE,
    SUFFIX,
    WEIGHTS,
    identifier,
)
from graftlab.apple.targets import PROVEN_RANK
from graftlab.files.reading import read_json

FILES = {METADATA, WEIGHTS, DRAFT, DRAFT_WEIGHTS}
KEYS: dict[str, type] = {
    "adapterIdentifier": str,
    "author": str,
    "baseModelSignature": str,
    "creatorDefined": dict,
    "description": str,
    "license": str,
    "loraRank": int,
    "speculativeDecodingDraftTokenCount": int,
}
_OFFSET = re.compile(r"offset\s*=\s*(?:tensor<uint64,\s*\[\]>|uint64)\((\d+)\)")


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that a package breaks, and how."""

    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


@dataclass(slots=True)
class Verdict:
    """What a package is, as far as it can be read, and what is wrong with it."""

    broken: list[Broken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no mistake but may not be meant."""
    layout: Layout | None = None
    identifier: str | None = None
    num_bytes: int = 0
    records: int = 0
    has_draft: bool = False


def verify(path: Path) -> Verdict:
    """Check a package against every rule; never raises for what is in it."""
    verdict = Verdict(list(_folder(path)))
    if not path.is_dir():
        return verdict
    metadata = _metadata(path, verdict)
    if (path / WEIGHTS).is_file():
        verdict.num_bytes = (path / WEIGHTS).stat().st_size
        _weights(path / WEIGHTS, metadata.get("loraRank"), verdict)
    verdict.has_draft = (path / DRAFT).is_file() and (path / DRAFT_WEIGHTS).is_file()
    if verdict.has_draft:
        verdict.broken += _draft(path)
    return verdict


def _folder(path: Path) -> Iterator[Broken]:
    if not path.is_dir():
        yield Broken("folder", f"{path} is not a folder.")
        return
    if path.suffix != SUFFIX:
        yield Broken("folder", f"{path.name} does not end in {SUFFIX}.")
    if not NAME.fullmatch(path.stem):
        yield Broken("name", f"{path.stem} has more than letters, digits and underscores.")
    present = {file.name for file in path.iterdir()}
    for file in (METADATA, WEIGHTS):
        if file not in present:
            yield Broken("files", f"{file} is missing.")
    for file in sorted(present - FILES):
        yield Broken("files", f"{file} does not belong to it.")
    if (DRAFT in present) != (DRAFT_WEIGHTS in present):
        there, absent = sorted((DRAFT, DRAFT_WEIGHTS), key=lambda file: file not in present)
        yield Broken("draft pair", f"{there} without {absent}: both or neither.")


def _metadata(path: Path, verdict: Verdict) -> dict[str, Any]:
    """The content of metadata.json, its rules checked; {} when it cannot be read."""
    try:
        content = read_json(path / METADATA)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        verdict.broken.append(Broken("metadata", f"{METADATA} is not JSON ({error})."))
        return {}
    if not isinstance(content, dict):
        verdict.broken.append(Broken("metadata", f"{METADATA} holds no keys."))
        return {}
    verdict.broken += _keys(content)
    if not any(problem.rule == "metadata keys" for problem in verdict.broken):
        verdict.broken += _values(content, path.stem)
        verdict.identifier = content["adapterIdentifier"]
        if content["loraRank"] != PROVEN_RANK:
            verdict.notes.append(
                f"rank {content['loraRank']}: only {PROVEN_RANK} is known to load on a device"
            )
    return content


def _keys(content: dict[str, Any]) -> Iterator[Broken]:
    for key, kind in KEYS.items():
        value = content.get(key)
        if key not in content:
            yield Broken("metadata keys", f"{key} is missing.")
        elif not isinstance(value, kind) or isinstance(value, bool):
            yield Broken("metadata keys", f"{key} is {value!r}, not {kind.__name__}.")
    for key in content.keys() - KEYS.keys():
        yield Broken("metadata keys", f"{key} is not a key of {METADATA}; creatorDefined is free.")
    if list(content) != sorted(content):
        yield Broken("metadata order", "its keys are not sorted.")


def _values(content: dict[str, Any], name: str) -> Iterator[Broken]:
    signature = content["baseModelSignature"]
    if not SIGNATURE.fullmatch(signature):
        yield Broken("signature", f"{signature} is not 40 lowercase hexadecimal digits.")
    wanted = identifier(name, signature)
    if content["adapterIdentifier"] != wanted:
        yield Broken("identifier", f"it is {content['adapterIdentifier']}, and should be {wanted}.")
    for key in ("loraRank", "speculativeDecodingDraftTokenCount"):
        if content[key] < 1:
            yield Broken("metadata values", f"{key} is {content[key]}: at least 1.")


def _weights(path: Path, rank: Any, verdict: Verdict) -> None:
    try:
        records = blob.read(path)
    except blob.BlobError as error:
        verdict.broken.append(Broken(f"blob {error.rule}", str(error)))
        return
    verdict.records = len(records)
    other = [index for index, record in enumerate(records) if record.dtype != blob.FP16]
    if other:
        verdict.broken.append(Broken("fp16", f"{path.name}: record {other[0]} is not fp16."))
        return
    if isinstance(rank, int) and rank > 0:
        elements = [record.elements for record in records]
        verdict.layout = layout_of_sizes(elements, rank)
        verdict.broken += _sizes(elements, rank, verdict.layout)
    verdict.broken += _numbers(path, records, verdict)


def _sizes(elements: list[int], rank: int, layout: Layout | None) -> Iterator[Broken]:
    apples = Layout(rank=max(elements, default=0) // Layout().feed_forward)
    if layout is None:
        yield Broken(
            "layout",
            f"{len(elements)} tensors of these sizes are no adapter of rank {rank} on all linears "
            "of an AFM text model.",
        )
    elif apples.rank != rank and elements == [s.shape[0] * s.shape[1] for s in apples.slots()]:
        yield Broken("rank", f"loraRank is {rank}, and the weights are of rank {apples.rank}.")


def _numbers(path: Path, records: list[blob.Record], verdict: Verdict) -> Iterator[Broken]:
    import numpy as np

    alive = False
    for index, record in enumerate(records):
        data = blob.load(path, record)
        if not np.isfinite(data).all():
            yield Broken("finite", f"{path.name}: record {index} has values that are no numbers.")
            return
        alive = alive or (index % 2 == 1 and bool(data.any()))
    if records and not alive:
        verdict.notes.append("every B is zero: this adapter changes nothing")


def _draft(path: Path) -> Iterator[Broken]:
    try:
        places = {record.place for record in blob.read(path / DRAFT_WEIGHTS)}
    except blob.BlobError as error:
        yield Broken(f"draft blob {error.rule}", str(error))
        return
    text = (path / DRAFT).read_text(encoding="utf-8", errors="replace")
    named = {int(offset) for offset in _OFFSET.findall(text)}
    if not named:
        yield Broken("draft program", f"{DRAFT} names no weight: is it a MIL program?")
    for offset in sorted(named - places)[:3]:
        yield Broken(
            "draft offsets",
            f"{DRAFT} points at byte {offset}, where {DRAFT_WEIGHTS} has no record.",
        )
