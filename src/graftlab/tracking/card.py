"""`card.md`: what an adapter is, from what it was made, and how to load it."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graftlab import __version__
from graftlab.tracking.result import Result


def git_commit(folder: Path) -> str:
    """The commit of the working folder, marked when it has changes; `unknown` without git."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def card(result: Result, *, base: str, facts: dict[str, Any]) -> str:
    """The card's text; `facts` are lines of provenance such as data hashes and the device."""
    import torch

    provenance = {
        **facts,
        "git commit": git_commit(Path.cwd()),
        "graftlab": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    told = asdict(result)
    metrics = told.pop("metrics")
    numbers = {k: v for k, v in {**told, **metrics}.items() if k != "adapter" and v is not None}
    lines = [
        f"# Adapter for {base}",
        "",
        "Made with graftlab; `run.yaml` beside this file holds the whole configuration.",
        "",
        "## Scores and cost",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in numbers.items()),
        "",
        "## Provenance",
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
