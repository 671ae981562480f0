"""What a run leaves behind that does not depend on the clock, to be compared with another's."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from graftlab.tracking.history import TIMES

TIMED = {"tokens_per_second", "peak_rss_mb", "adapter"}


def left_behind(run: Path) -> dict[str, Any]:
    """Result, log, samples, checkpoints and both adapters of a finished run."""
    result = json.loads((run / "result.json").read_text())
    with (run / "train_log.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    samples = run / "samples.md"
    return {
        "result": {k: v for k, v in result.items() if k not in TIMED},
        "rows": rows,
        "samples": samples.read_text() if samples.exists() else None,
        "checkpoints": sorted(p.name for p in (run / "checkpoints").iterdir()),
        **{
            name: {k: v.numpy().tobytes() for k, v in load_file(path).items()}
            for name in ("adapter", "adapter-final")
            for path in [run / name / "adapter_model.safetensors"]
        },
    }
