"""Whether an export says what training said: logits of both, on a few conversations.

Computed in fp32 on both sides, so that what is found apart is what rounding the weights cost.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graftlab.adapters.attach import load_trained
from graftlab.errors import ModelError
from graftlab.types import Message

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.text.tokenizer import Tokenizer

Answer = Callable[[Tensor], Tensor]
"""Ids (1, T) -> logits (T, V) in fp32."""
CONVERSATIONS = (
    ("Which instrument opens the record?", "A clarinet, alone, for the first eleven bars."),
    ("Count from one to twelve.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 12."),
    (
        "Write a function that returns the larger of two numbers.",
        "def larger(a, b):\n    return a if a > b else b\n",
    ),
    (
        "Why does the sky turn red in the evening?",
        "The light of a low sun goes a long way through the air. Blue is scattered out of it, and "
        "what reaches the eye is mostly red.",
    ),
)
"""What is asked and answered, in the words of no data set."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an export is from what was trained, over all positions of the conversations."""

    positions: int
    largest: float
    """The largest difference of a logit."""
    kl: float
    """Mean divergence KL(trained || export), in nats."""
    moved: float
    """Mean divergence KL(trained || base): what the adapter does."""
    differing: int
    """At how many positions another token is the likeliest."""

    def __str__(self) -> str:
        return (
            f"logits as in training, at {self.positions} positions: largest difference "
            f"{self.largest:.2g}, KL {self.kl:.2g} nats (the adapter moves its base by "
            f"{self.moved:.2g}), another likeliest token at {self.differing}"
        )


def rows_of(tokenizer: Tokenizer) -> list[Tensor]:
    """`CONVERSATIONS` as ids (1, T), in the tokenizer's own template."""
    turns = [(Message("user", asked), Message("assistant", said)) for asked, said in CONVERSATIONS]
    return [torch.tensor([tokenizer.render(turn, generation_prompt=False)]) for turn in turns]


def agreement(trained: TrainedModel, strength: float, folder: Path, *, trust: bool) -> Agreement:
    """How far the model in `folder`, which plain transformers loads, is from the trained one.

    One model after the other is in memory, in fp32. Raises ModelError where `folder` does not load.
    """

    def load() -> Answer:
        model = _plain(folder, trust=trust)
        return lambda row: model(input_ids=row, use_cache=False).logits[0].float()

    return compared(trained, strength, load)


def compared(trained: TrainedModel, strength: float, load: Callable[[], Answer]) -> Agreement:
    """How far the export that `load` gives is from the trained model, one after the other."""
    rows = rows_of(trained.load_tokenizer())
    wanted, alone = _trained_logits(trained, strength, rows)
    gc.collect()  # a model may hold itself in cycles, and two of them need twice the memory
    answer = load()
    with torch.no_grad():
        found = [answer(row) for row in rows]
    positions = sum(row.shape[1] for row in rows)
    pairs = list(zip(wanted, found, strict=True))
    return Agreement(
        positions,
        max(float((ours - theirs).abs().max()) for ours, theirs in pairs),
        sum(_divergence(ours, theirs) for ours, theirs in pairs) / positions,
        sum(_divergence(ours, base) for ours, base in zip(wanted, alone, strict=True)) / positions,
        sum(int((ours.argmax(-1) != theirs.argmax(-1)).sum()) for ours, theirs in pairs),
    )


@torch.no_grad()
def _trained_logits(
    trained: TrainedModel, strength: float, rows: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Logits (T, V) of each row: with the adapter, and of the base alone."""
    base = trained.model.load(dtype=torch.float32, device=torch.device("cpu"))
    adapter = load_trained(base, trained, dtype=torch.float32)
    assert adapter is not None, "a whole model is not merged"

    def logits(state: AbstractContextManager[None]) -> list[Tensor]:
        with state:
            return [base.own_logits(row)[0] for row in rows]

    return logits(adapter.scaled(strength)), logits(adapter.disabled())


def _plain(folder: Path, *, trust: bool) -> Any:
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=trust,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "mismatched_keys"):
        if found := sorted(map(str, report[kind])):
            raise ModelError(f"transformers reads {folder.name} with {kind}: {found[:3]}.")
    return model.eval()


def _divergence(trained: Tensor, other: Tensor) -> float:
    """Sum over positions of KL(trained || other), in nats, of logits (T, V)."""
    told, given = (torch.log_softmax(each.double(), -1) for each in (trained, other))
    return float((told.exp() * (told - given)).sum())
