"""`card.md`: what an adapter is, from what it was made, and how to load it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graftlab import __version__
from graftlab.tracking.result import Result, how_sure

FILE = "card.md"
SCORES, STRENGTHS, PROVENANCE = "Scores and cost", "At other strengths", "Provenance"
"""Headings of the card."""


def git_commit(folder: Path) -> str | None:
    """The commit of the working folder, marked when it has changes; None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def card(result: Result, *, base: str, facts: dict[str, Any]) -> str:
    """The card's text; `facts` are lines of provenance such as data hashes and the device."""
    import torch

    commit = git_commit(Path.cwd())
    provenance = {
        **facts,
        **({"git commit": commit} if commit else {}),
        "graftlab": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    told = asdict(result)
    metrics, strengths = told.pop("metrics"), told.pop("strengths")
    for elsewhere in ("adapter", "interval", "valid_documents"):
        del told[elsewhere]
    numbers = {k: value for k, value in {**told, **metrics}.items() if value not in (None, {})}
    surety = how_sure(result)
    lines = [
        f"# Adapter for {base}",
        "",
        "Made with graftlab; `run.yaml` beside this file holds the whole configuration.",
        "",
        f"## {SCORES}",
        "",
        *(f"- {key.replace('_', ' ')}: {_shown(value)}" for key, value in numbers.items()),
        *([f"- {surety}"] if surety else []),
        "",
        *_strengths(strengths),
        f"## {PROVENANCE}",
        "",
        *(f"- {key}: {value}" for key, value in provenance.items()),
        "",
        "## Use",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base}")',
        'model = PeftModel.from_pretrained(base, "this folder")',
        "```",
        "",
        "The tokenizer and chat template it was trained with lie beside this file.",
        "",
    ]
    return "\n".join(lines)


def sections(text: str) -> dict[str, str]:
    """What stands under each `## HEADING` of a card, by heading, in its order."""
    found: dict[str, list[str]] = {}
    heading = None
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ").strip()
            found[heading] = []
        elif heading is not None:
            found[heading].append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in found.items()}


def _strengths(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """A table of the adapter at several strengths; nothing where it was not measured."""
    if not rows:
        return []
    return [
        f"## {STRENGTHS}",
        "",
        "Validation with the adapter scaled, in nats per token; 1 is as trained.",
        "",
        f"| {' | '.join(rows[0])} |",
        f"|{'---|' * len(rows[0])}",
        *(f"| {' | '.join(f'{value:.4g}' for value in row.values())} |" for row in rows),
        "",
    ]


def _shown(value: Any) -> str:
    """A number as people read it: four decimals at most, none of large ones."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4f}".rstrip("0").rstrip(".")
    return str(value)
