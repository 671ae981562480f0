"""`target=gguf`: base and adapter as one GGUF file, for llama.cpp and what is built on it.

    model.gguf      weights, tokenizer, chat template and every token at which a reply ends
    imatrix.gguf    with target.imatrix_rows=N, what weighed the errors of rounding

Sums are in fp32 and rounded once, one tensor in memory at a time. f16 is the default: it rounds
eight times finer than bf16, which costs 2e-6 nats (KL) where bf16 costs 9e-5, and every backend of
llama.cpp computes with it; what does not fit it (above 65,504) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.exports.parity.spec import Bounds
from graftlab.exports.runtimes.llama_cpp import llama_cpp
from graftlab.exports.source import Trained
from graftlab.exports.target import Target
from graftlab.files.checksums import write_checksums
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.exports.gguf.draft import Draft
    from graftlab.exports.runtimes.base import NotHere, Runtime

FILE = "model.gguf"
LOSSES = {
    "f32": (0.98, 1e-5),
    "f16": (0.98, 1e-4),
    "bf16": (0.98, 1e-2),
    "q8_0": (0.98, 0.02),
    "q6_k": (0.95, 0.05),
    "q5_k_m": (0.95, 0.1),
    "q4_k_m": (0.9, 0.2),
    "q4_0": (0.8, 0.4),
}
"""Type -> the least share of the gain, and the KL in nats that its rounding explains.

Measured on SmolLM2-135M (benchmarks/results/export.md), whose small matrices suffer more than those
of larger models: f16 3e-6, bf16 2e-4, q8_0 0.003 (0.996 of the gain), q6_k 0.008 (0.993), q4_k_m
0.05 (0.96), q4_0 0.25 (0.84). Several times as much is let pass, but for q4_0, which is the worst.
q5_k_m lost 0.15 (0.92) there, more than it may: the weights of that folder had been in Q4_1, and
Q5_1 falls back onto their grid, the adapter with them; spread off it, they lost 0.045 (0.97)."""
ON_A_GRID = (
    "the base's own weights are in few bits: to round to few bits again may fall back onto them, "
    "and lose the adapter. target.quant=q8_0 or f16 keep it, and so does target=gguf-lora"
)
WEIGHED = ("q6_k", "q5_k_m", "q4_k_m", "q4_0")
"""Types whose rounding an importance matrix weighs."""
CHOICES = ("f32", "f16", "bf16", "q8_0", *WEIGHED)


@choice("gguf")
@dataclass(kw_only=True, slots=True)
class GGUF(Target):
    """A merged model for llama.cpp."""

    quant: str = "f16"
    """Type of the weights: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m or q4_0."""
    strength: float = 1.0
    """How much of the adapter: 1 as trained, 0.7 softer."""
    imatrix_rows: int = 0
    """Training rows that an importance matrix is made from, for six bits and fewer; 0: none."""

    def __post_init__(self) -> None:
        require_choice("target.quant", self.quant, CHOICES)
        require_range("target.imatrix_rows", self.imatrix_rows, least=0)
        if self.imatrix_rows and self.quant not in WEIGHED:
            raise ConfigError(
                f"target.imatrix_rows={self.imatrix_rows}: target.quant={self.quant} rounds without"
                f" an importance matrix; these take one: {', '.join(WEIGHED)}."
            )
        require_range("target.strength", self.strength, above=0)

    def check_files(self) -> None:
        from graftlab.exports.gguf.writing import require_gguf

        require_gguf("gguf")

    def check(self, adapter: Trained) -> list[str]:
        from graftlab.exports.gguf.inputs import asked_rows
        from graftlab.exports.gguf.kinds import bits
        from graftlab.exports.gguf.quantising import require_quantiser

        draft = self._draft(adapter, "check")
        require_quantiser(draft.kinds)
        if self.imatrix_rows:
            asked_rows(draft.model.trained, self.imatrix_rows)
        notes = list(draft.notes)
        if draft.model.unties:
            notes.append(
                "head and embedding, one tensor in the base, are two: only one has the adapter"
            )
        if self.quant in WEIGHED and draft.model.on_a_grid:
            notes.append(ON_A_GRID)
        if draft.fallen:
            notes.append(
                f"{draft.fallen} of {len(draft.entries)} tensors have rows that fill no blocks of "
                f"{self.quant}, and took larger types: {bits(draft.entries):.2f} bits a weight"
            )
        return notes

    def write(self, adapter: Trained, folder: Path) -> None:
        from graftlab.exports.gguf.inputs import write_importance
        from graftlab.exports.gguf.program import write_draft

        draft = self._draft(adapter, folder.name)
        if self.imatrix_rows:
            write_importance(draft, folder, count=self.imatrix_rows, strength=self.strength)
        write_draft(self._weighed(draft, folder), folder / FILE)
        write_checksums(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        from graftlab.exports.gguf.checking import compare_texts, compare_weights

        draft, file = self._weighed(self._draft(adapter, folder.name), folder), folder / FILE
        facts = [compare_weights(draft, file), compare_texts(draft, file)]
        return [*facts, str(draft.importance)] if draft.importance else facts

    @property
    def scale(self) -> float:
        return self.strength

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        return llama_cpp(folder / FILE)

    def bounds(self, folder: Path) -> Bounds:
        least, kl = LOSSES[self.quant]
        return Bounds(least, kl, f"rounding to {self.quant}")

    def cure(self) -> str:
        if self.quant in ("f32", "f16"):
            return "target.quant=f32 tells whether it is the rounding."
        if self.quant in ("bf16", "q8_0"):
            return "target.quant=f16 keeps more of it, and target=gguf-lora all."
        return "target.quant=q8_0 or f16 keeps more of it, and target=gguf-lora all."

    def _weighed(self, draft: Draft, folder: Path) -> Draft:
        """With the importance matrix that lies in `folder`, where one is asked for."""
        from graftlab.exports.gguf import importance

        if not self.imatrix_rows:
            return draft
        return draft.weighed(importance.read_importance(folder / importance.FILE))

    def _draft(self, adapter: Trained, name: str) -> Draft:
        from graftlab.exports.gguf.draft import draft
        from graftlab.exports.gguf.merging import merged

        return draft(merged(adapter, self.strength, target="gguf"), self.quant, name=name)
