"""`target=gguf`: base and adapter as one GGUF file, for llama.cpp and what is built on it.

    model.gguf    weights, tokenizer, chat template and every token at which a reply ends

Sums are in fp32 and rounded once, one tensor in memory at a time. f16 is the default: it rounds
eight times finer than bf16, which costs 2e-6 nats (KL) where bf16 costs 9e-5, and every backend of
llama.cpp computes with it; what does not fit it (above 65,504) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import require_choice, require_range
from graftlab.exports.source import Trained
from graftlab.exports.target import Target
from graftlab.files.checksums import write_checksums
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.exports.gguf.draft import Draft

FILE = "model.gguf"
CHOICES = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")


@choice("gguf")
@dataclass(kw_only=True, slots=True)
class GGUF(Target):
    """A merged model for llama.cpp."""

    quant: str = "f16"
    """Type of the weights: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m or q4_0."""
    strength: float = 1.0
    """How much of the adapter: 1 as trained, 0.7 softer."""
    compare: bool = True
    """Load training's model and the file in fp32, one after the other, and compare their logits."""

    def __post_init__(self) -> None:
        require_choice("target.quant", self.quant, CHOICES)
        require_range("target.strength", self.strength, above=0)

    def check_files(self) -> None:
        from graftlab.exports.gguf.writing import require_gguf

        require_gguf("gguf")

    def check(self, adapter: Trained) -> list[str]:
        from graftlab.exports.gguf.kinds import bits
        from graftlab.exports.gguf.quantising import require_quantiser

        draft = self._draft(adapter, "check")
        require_quantiser({entry.kind for entry in draft.entries.values()})
        notes = list(draft.notes)
        if draft.model.unties:
            notes.append(
                "head and embedding, one tensor in the base, are two: only one has the adapter"
            )
        if draft.fallen:
            notes.append(
                f"{draft.fallen} of {len(draft.entries)} tensors have rows that fill no blocks of "
                f"{self.quant}, and took larger types: {bits(draft.entries):.2f} bits a weight"
            )
        return notes

    def write(self, adapter: Trained, folder: Path) -> None:
        from graftlab.exports.gguf.writing import write_gguf

        draft = self._draft(adapter, folder.name)
        write_gguf(folder / FILE, draft.metadata, draft.entries, draft.arrays())
        write_checksums(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        from graftlab.exports.gguf.checking import compare_logits, compare_texts, compare_weights

        draft, file = self._draft(adapter, folder.name), folder / FILE
        facts = [compare_weights(draft, file), compare_texts(draft, file)]
        if not self.compare:
            return [*facts, "logits were not compared (target.compare=false)"]
        return [*facts, *compare_logits(draft, file, self.strength)]

    def _draft(self, adapter: Trained, name: str) -> Draft:
        from graftlab.exports.gguf.draft import draft
        from graftlab.exports.gguf.merging import merged

        return draft(merged(adapter, self.strength, target="gguf"), self.quant, name=name)
