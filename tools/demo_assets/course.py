"""One pass over a stream of tokens: rows, rates and optimizers of the bases made here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.models.arithmetic import fastest_autocast
from graftlab.progress import Progress, Row

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

LAST_STEPS = 20  # the training loss that is reported is the mean over these


@dataclass(kw_only=True, slots=True)
class Course:
    """How a stream is read; the defaults are those of the tiny base."""

    seed: int = 0
    """Seed of the text and of the initial weights."""
    context: int = 2048
    """Longest sequence; the last part of the training uses rows of this length."""
    row_length: int = 512
    """Length of the rows in the first part of the text."""
    long_share: float = 0.2
    """Share of the tokens read in rows of `context`."""
    step_tokens: int = 4096
    """Tokens per optimizer step."""
    matrix_lr: float = 6e-3
    """Peak learning rate of the layers' matrices (Muon); copying was worse at 0.015."""
    other_lr: float = 4e-3
    """Peak learning rate of embeddings, norms and biases (AdamW)."""
    warmup_steps: int = 20
    """Linear warm-up; then constant."""
    decay_share: float = 0.4
    """Share of the steps, at the end, in which the rates fall linearly to zero."""


def batches(stream: np.ndarray, course: Course) -> Iterator[torch.Tensor]:
    """Rows (B, T + 1) of each step: short rows first, rows of the whole context last.

    Documents follow each other in a row and see each other, as usual in pretraining: so every
    position is trained though few documents are long.
    """
    import torch

    split = int(len(stream) * (1 - course.long_share)) // course.step_tokens * course.step_tokens
    for part, length in ((stream[:split], course.row_length), (stream[split:], course.context)):
        size = course.step_tokens
        for start in range(0, len(part) - size, size):
            flat = torch.from_numpy(part[start : start + size + 1]).long()
            yield torch.stack([flat[at : at + length + 1] for at in range(0, size, length)])


def rate_factor(step: int, *, steps: int, course: Course) -> float:
    """Warm-up, constant, linear decay to zero (arXiv 2404.06395)."""
    decay_steps = max(1, round(steps * course.decay_share))
    return min(1.0, (step + 1) / course.warmup_steps, (steps - step) / decay_steps)


def optimizers(
    model: nn.Module, layers: Iterable[nn.Parameter], course: Course
) -> list[torch.optim.Optimizer]:
    """Muon (arXiv 2502.16982) for the matrices among `layers`, AdamW for everything else."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    inner = {id(p) for p in layers if p.ndim == 2}
    matrices = [p for p in trained if id(p) in inner]
    others = [p for p in trained if id(p) not in inner]
    return [
        torch.optim.Muon(
            matrices, lr=course.matrix_lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=course.other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learn(
    model: nn.Module,
    stream: np.ndarray,
    course: Course,
    *,
    loss: Callable[[Tensor], Tensor],
    optimizers: list[torch.optim.Optimizer],
    on_step: Callable[[int, int, float], None],
) -> float:
    """The stream once, `loss(rows)` minimised, followed by `on_step(step, steps, loss)`.

    Returns the mean of the last losses, in nats per token.
    """
    import torch

    steps = sum(1 for _ in batches(stream, course))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    losses: list[float] = []
    model.train()
    for step, rows in enumerate(batches(stream, course)):
        factor = rate_factor(step, steps=steps, course=course)
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * factor
        with fastest_autocast(torch.device("cpu")):
            value = loss(rows)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(value.detach()))
        on_step(step + 1, steps, losses[-1])
    model.eval()
    tail = losses[-LAST_STEPS:]
    return sum(tail) / len(tail)


@contextmanager
def shown_steps() -> Iterator[Callable[[int, int, float], None]]:
    """Yields an `on_step` for people: the time left, and a line every fortieth part."""
    with Progress("text, tokenizer, steps", stays=True) as progress:

        def on_step(step: int, steps: int, loss: float) -> None:
            progress.show([Row(step, steps, f"loss {loss:.3f}")])
            if step % max(1, steps // 40) == 0:
                progress.say(f"step {step:4d} of {steps}  loss {loss:.3f}")

        yield on_step
