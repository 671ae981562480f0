"""Configurations that `plan` is calibrated on: those that found its constants, and unseen ones.

A base is random and has a vocabulary of 32,000 (`workload.py`); what counts are its sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workload import SHAPE

NAMES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration: a base by its five sizes, and what is typed."""

    sizes: tuple[int, ...]
    words: tuple[str, ...]
    profile: str = "chats"
    steps: int | None = None
    """Optimizer steps of the measured run, where the caller does not say."""

    @property
    def shape(self) -> dict[str, Any]:
        return {**SHAPE, **dict(zip(NAMES, self.sizes, strict=True))}


BF16, FP32 = "precision=bf16-mixed", "precision=fp32"
CHECKPOINTS = "model.gradient_checkpointing=true"
UNSEEN = {
    "384-bf16": Case((384, 1536, 10, 6, 3), (BF16, "packing.max_length=1280"), "short"),
    "576-fp32": Case((576, 1536, 6, 9, 3), (FP32, "packing.max_length=2560"), "short"),
    "320-deep-long": Case((320, 896, 12, 5, 5), (BF16, "packing.max_length=4095")),
    "384-checkpoints": Case(
        (384, 2048, 8, 6, 6), (BF16, "packing.max_length=4095", CHECKPOINTS), "seeds"
    ),
    "640-fp32-checkpoints": Case(
        (640, 1792, 5, 10, 5), (FP32, "packing.max_length=2048", CHECKPOINTS), "short"
    ),
    "448-fp32-checkpoints": Case(
        (448, 1216, 7, 7, 7), (FP32, "packing.max_length=3072", CHECKPOINTS), "short"
    ),
    "256-batch-4": Case(
        (256, 768, 6, 4, 2), (BF16, "packing.max_length=1024", "batch_size=4"), "short"
    ),
    "768-rank-64-dropout": Case(
        (768, 2048, 4, 12, 4),
        (BF16, "packing.max_length=1536", "lora.rank=64", "lora.dropout=0.05"),
        "short",
    ),
    "512-compiled": Case(
        (512, 1408, 8, 8, 2), (BF16, "packing.max_length=2048", "compile=on"), "short"
    ),
}
"""None of these was used to find a constant."""


def _rows(length: int) -> str:
    return f"packing.max_length={length}"


FIT = {
    "256-bf16": Case((256, 704, 4, 4, 2), (BF16, _rows(1024)), "short", 3),
    "256-fp32": Case((256, 704, 4, 4, 2), (FP32, _rows(1024)), "short", 3),
    "256-bf16-long": Case((256, 704, 4, 4, 2), (BF16, _rows(1024)), "short", 300),
    "384-fp32": Case((384, 1024, 6, 6, 2), (FP32, _rows(1024)), "short", 60),
    "320-batch-2": Case((320, 896, 8, 5, 5), (BF16, _rows(1536), "batch_size=2"), "short", 60),
    "320-fp32-long": Case((320, 896, 6, 5, 5), (FP32, _rows(4095)), "chats", 16),
    "448-bf16-pure": Case((448, 1216, 6, 7, 7), ("precision=bf16", _rows(2048)), "short", 24),
    "448-fp32-compiled": Case((448, 1216, 6, 7, 7), (FP32, _rows(2048), "compile=on"), "short", 24),
    "512-fp32": Case((512, 1408, 6, 8, 4), (FP32, _rows(2048)), "short", 30),
    "512-bf16": Case((512, 1408, 6, 8, 4), (BF16, _rows(2048)), "short", 30),
    "512-checkpoints": Case((512, 1408, 8, 8, 4), (BF16, _rows(4095), CHECKPOINTS), "chats", 24),
    "512-fp32-checkpoints": Case(
        (512, 1408, 8, 8, 4), (FP32, _rows(3072), CHECKPOINTS), "seeds", 24
    ),
    "640-compiled": Case((640, 1792, 6, 10, 2), (BF16, _rows(1536), "compile=on"), "short", 24),
    "704-bf16": Case((704, 1920, 4, 11, 11), (BF16, _rows(1792)), "seeds", 24),
    "896-checkpoints": Case((896, 2432, 4, 14, 2), (BF16, _rows(2048), CHECKPOINTS), "short", 24),
}
"""These found LOSS and FRAYS of `src/graftlab/planning/memory.py`; see `plan_fit.py`."""
