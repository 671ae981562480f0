"""The `README.md` of an export: what the Hugging Face hub reads of it, and people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.files.writing import write_atomic
from graftlab.tracking.card import PROVENANCE, SCORES, STRENGTHS

FILE = "README.md"
PARITY = "As in training?"
"""Heading of what was found when the export was compared with training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model card; `text` is the file."""

    name: str
    """The repository, or what is loaded in its place."""
    base: str | None
    """The base's id on the hub; None where it has none."""
    merged: bool
    """Whether it is a whole model, base and adapter in one."""
    adapter: Mapping[str, Any]
    """What adapter_config.json holds."""
    licence: Mapping[str, str]
    """`license`, `license_name` and `license_link`, where they are known."""
    told: Mapping[str, str] = field(default_factory=dict)
    """Heading -> text of the card that the run wrote."""

    def text(self) -> str:
        """Front matter and Markdown."""
        import yaml

        front = yaml.safe_dump(self._front(), sort_keys=False, allow_unicode=True)
        base = self.base or "its base"
        what = (
            f"{base} with {self._kind()} merged into it: one model, without PEFT."
            if self.merged
            else f"{self._kind()[0].upper()}{self._kind()[1:]} for {base}."
        )
        lines = ["---", front.rstrip(), "---", "", f"# {self.name.rpartition('/')[2]}", "", what]
        lines += ["Trained with graftlab.", "", "## Use", "", *self._use(), ""]
        for heading in (SCORES, STRENGTHS, PROVENANCE):
            if heading in self.told:
                lines += [f"## {heading}", "", self.told[heading], ""]
        return "\n".join(lines)

    def _front(self) -> dict[str, Any]:
        relation = "finetune" if self.merged else "adapter"
        base = {"base_model": self.base, "base_model_relation": relation} if self.base else {}
        return {
            **base,
            "library_name": "transformers" if self.merged else "peft",
            "pipeline_tag": "text-generation",
            **self.licence,
            "tags": ["lora", "graftlab"],
        }

    def _kind(self) -> str:
        config = self.adapter
        name = "DoRA" if config.get("use_dora") else "LoRA"
        name = "rsLoRA" if config.get("use_rslora") else name
        on = config.get("target_modules") or ()
        modules = on if isinstance(on, str) else ", ".join(sorted(on))
        return f"a {name} adapter of rank {config.get('r')} on {modules}"

    def _use(self) -> list[str]:
        name, base = json.dumps(self.name), json.dumps(self.base)
        peft = [] if self.merged else ["from peft import PeftModel"]
        load = [f"model = AutoModelForCausalLM.from_pretrained({name})"]
        if not self.merged:
            load = [
                f"base = AutoModelForCausalLM.from_pretrained({base})",
                f"model = PeftModel.from_pretrained(base, {name})",
            ]
        return [
            *("```python", *peft, "from transformers import AutoModelForCausalLM, AutoTokenizer"),
            *("", *load, f"tokenizer = AutoTokenizer.from_pretrained({name})", "```"),
        ]


def add_section(card: Path, heading: str, lines: Sequence[str]) -> None:
    """Put a section with these lines, as they are, into a card: in place of an earlier, or last.

    What people wrote before and behind it stays.
    """
    text = card.read_text(encoding="utf-8")
    before, _, behind = text.partition(f"\n## {heading}\n")
    _, more, rest = behind.partition("\n## ")
    block = "\n".join(["", f"## {heading}", "", "```text", *lines, "```", ""])
    write_atomic(card, f"{before.rstrip()}\n{block}{more}{rest}")
