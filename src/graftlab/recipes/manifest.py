"""The manifest: what went in, what every step did with which parameters, and what came out.

Holds no time, host or path of the result: the same inputs and seed give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from graftlab import __version__
from graftlab.data.prepared import MANIFEST
from graftlab.recipes.pipeline import StepCounts
from graftlab.recipes.sources import SourceSpec, fingerprint


def manifest(
    *,
    key: str,
    seed: int,
    inputs: Mapping[str, Sequence[Path]],
    sources: Mapping[str, SourceSpec],
    rewriter: Mapping[str, Any] | None,
    tallies: Sequence[StepCounts],
    rows: Mapping[str, Counter[str]],
    folder: Path,
) -> dict[str, Any]:
    """The manifest of the files in `folder`; `inputs` are the files that each source read.

    `key` is the hash of all that decides the result, by which it is found again;
    `rewriter` is who was asked for neutral inputs, as written to a file.
    """
    return {
        "graftlab": __version__,
        "rensa": _rensa(),
        "key": key,
        "seed": seed,
        "inputs": [
            {"source": name} | fingerprint(path) for name, paths in inputs.items() for path in paths
        ],
        "sources": {name: dataclasses.asdict(spec) for name, spec in sources.items()},
        "rewriter": rewriter,
        "steps": [_step(tally) for tally in tallies],
        "result": {
            side: {"rows": counts.total(), "sources": dict(sorted(counts.items()))}
            | _whole(folder / f"{side}.jsonl")
            for side, counts in rows.items()
        },
        "rejects": {
            "rows": sum(tally.dropped for tally in tallies),
            "parts": sum(tally.parts.total() for tally in tallies),
        }
        | _whole(folder / "rejects.jsonl"),
    }


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Put `manifest.json` into the folder: the last file of a whole result."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", errors="backslashreplace")


def _step(tally: StepCounts) -> dict[str, Any]:
    known = dataclasses.is_dataclass(tally.parameters)
    parts: dict[str, Any] = {"parts": dict(sorted(tally.parts.items()))} if tally.parts else {}
    parts |= {"metadata": sorted(tally.metadata)} if tally.metadata else {}
    return (
        {
            "step": tally.step,
            "in": tally.taken.total(),
            "kept": tally.kept,
            "dropped": dict(sorted(tally.reasons.items())),
            "out": tally.given.total(),
            "sources": {name: _passed(name, tally) for name in sorted(tally.taken | tally.given)},
        }
        | parts
        | ({"parameters": dataclasses.asdict(tally.parameters)} if known else {})
    )


def _passed(source: str, tally: StepCounts) -> dict[str, Any]:
    """One source through a step; `times` above 1 is up-sampling, below 1 is rows left out."""
    taken, given = tally.taken[source], tally.given[source]
    return {"in": taken, "out": given} | ({"times": round(given / taken, 3)} if taken else {})


def _whole(path: Path) -> dict[str, Any]:
    found = fingerprint(path)
    return {"bytes": found["bytes"], "sha256": found["sha256"]}


def _rensa() -> str | None:
    """MinHash values belong to a version of their library."""
    try:
        return version("rensa")
    except PackageNotFoundError:
        return None
