"""The report of a prepared folder: report.html, one file to read before training on it.

    manifest.json ──────────────▶ counts per source and step
    rejects.jsonl ──▶ losses.py ▶ what was dropped and why
    SIDE.jsonl    ──▶ survey.py ▶ lengths, signs of damage; of a sample, phrases.py
                                                                   everything ▶ page.py

Each file is read once, in bounded memory; what is drawn by lot is drawn by a hash of the row and
the seed, so the same folder gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from graftlab.data.prepared import MANIFEST
from graftlab.files.reading import read_json

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Put `report.html` into a folder that has its rows, rejects and manifest; returns its path."""
    from graftlab.recipes.report.losses import read_losses
    from graftlab.recipes.report.page import page
    from graftlab.recipes.report.survey import Survey

    manifest = read_json(folder / MANIFEST)
    seed = int(manifest["seed"])
    losses = read_losses(folder / "rejects.jsonl", seed=seed)
    survey = Survey.of(folder, list(manifest["result"]), seed=seed)
    path = folder / REPORT
    path.write_text(page(manifest, losses, survey), encoding="utf-8", newline="\n")
    return path
