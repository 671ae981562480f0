"""The manifest: what went in, what every step did with which parameters, and what came out.

Holds no time, host or path of the result: the same inputs and seed give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab import __version__
from graftlab.data.prepared import MANIFEST
from graftlab.recipes.key import library_version
from graftlab.recipes.pipeline import StepCounts
from graftlab.recipes.sources import fingerprint
from graftlab.recipes.spec import PrepareSpec
from graftlab.registry import dump


def write(
    folder: Path,
    spec: PrepareSpec,
    key: str,
    tallies: Sequence[StepCounts],
    rows: Mapping[str, Counter[str]],
) -> None:
    """Put `manifest.json` into the folder: the last file of a whole result.

    `key` is the hash of all that decides the result, by which it is found again.
    """
    content = {
        "graftlab": __version__,
        "rensa": library_version("rensa"),  # MinHash values belong to a version
        "key": key,
        "seed": spec.seed,
        "inputs": [
            {"source": name, "file": str(path)} | fingerprint(path)
            for name, paths in spec.inputs().items()
            for path in paths
        ],
        "sources": {name: dataclasses.asdict(source) for name, source in spec.sources.items()},
        "rewriter": dump(spec.asked_rewriter),
        "steps": [_step(tally) for tally in tallies],
        "result": {
            side: {"rows": counts.total(), "sources": dict(sorted(counts.items()))}
            | fingerprint(folder / f"{side}.jsonl")
            for side, counts in rows.items()
        },
        "rejects": {
            "rows": sum(tally.dropped for tally in tallies),
            "parts": sum(tally.parts.total() for tally in tallies),
        }
        | fingerprint(folder / "rejects.jsonl"),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", errors="backslashreplace")


def _step(tally: StepCounts) -> dict[str, Any]:
    told: dict[str, Any] = {
        "step": tally.step,
        "in": tally.taken.total(),
        "kept": tally.kept,
        "dropped": dict(sorted(tally.reasons.items())),
        "out": tally.given.total(),
        "sources": {name: _passed(name, tally) for name in sorted(tally.taken | tally.given)},
    }
    if tally.parts:
        told["parts"] = dict(sorted(tally.parts.items()))
    if tally.metadata:
        told["metadata"] = sorted(tally.metadata)
    if dataclasses.is_dataclass(tally.parameters):
        told["parameters"] = dataclasses.asdict(tally.parameters)  # type: ignore[arg-type]
    return told


def _passed(source: str, tally: StepCounts) -> dict[str, Any]:
    """One source through a step; `times` above 1 is up-sampling, below 1 is rows left out."""
    taken, given = tally.taken[source], tally.given[source]
    return {"in": taken, "out": given} | ({"times": round(given / taken, 3)} if taken else {})
