"""Before training on pairs: do branches see their prompt and themselves, on this very model?

row               P P P | C C C | R R     D D      a document of two branches, and another one
chosen changed    P P P | X X X | R R     D D      all but the chosen branch must not move
rejected changed  P P P | C C C | X X     D D      all but the rejected branch must not move
alone             P P P C C C   P P P R R          each branch must be what it is by itself
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from graftlab.errors import LeakError
from graftlab.models.base import AttachedAdapter, Base
from graftlab.models.finite import check_outputs
from graftlab.models.probe import compute_tolerance, distance, probe_batch, probe_documents, stirred

PARENTS = (-1, 0, 0, -1)
"""Of prompt, chosen and rejected branch, and another document."""
NAMES = ("prompt", "chosen branch", "rejected branch", "next document")


@torch.no_grad()
def check_branches(
    base: Base,
    adapter: AttachedAdapter | None,
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    seed: int = 0,
) -> str:
    """Run the model on a pair, with either branch changed, and on both alone; a line for the log.

    As `check_isolation`, whose conditions and adapter it has. Raises LeakError or ModelError.
    """
    prompt, chosen, rejected, other = probe_documents(base.vocab_size, seed)
    row = [prompt, chosen, rejected, other]
    quiet = torch.compiler.set_stance("force_eager")
    with stirred(adapter, seed), base.evaluating(), quiet, autocast():
        tolerance = compute_tolerance(base)
        seen = _see(base, row)
        for changed in (1, 2):
            another = list(row)
            another[changed] = (row[changed] + base.vocab_size // 2) % base.vocab_size
            _require_still(base, seen, _see(base, another), changed)
        alone = [_alone(base, prompt, branch) for branch in (chosen, rejected)]
    check_outputs(base, torch.cat(seen), base.logits(torch.cat(seen)))
    apart = max(distance(seen[at], own) for at, own in zip((1, 2), alone, strict=True))
    if not apart <= tolerance:  # NaN too
        raise LeakError(
            f"{base.name}: an answer behind a shared prompt is not computed as it is alone: the "
            f"outputs are {apart:.2g} apart (relative L2; rounding explains {tolerance:.0e}). "
            f"{CURE}"
        )
    return f"so are branches behind a shared prompt, within {apart:.1g} of alone"


CURE = "Laying each answer behind its own prompt is safe: packing.share_prompts=false."


def _see(base: Base, segments: list[Tensor]) -> list[Tensor]:
    """Hidden states (T, D) of each segment."""
    batch = probe_batch(segments, parents=PARENTS).to(base.device)
    hidden = base.hidden(batch)[0]
    return [hidden[place] for place in batch.segments()]


def _alone(base: Base, prompt: Tensor, branch: Tensor) -> Tensor:
    batch = probe_batch([torch.cat([prompt, branch])]).to(base.device)
    return base.hidden(batch)[0, len(prompt) :]


def _require_still(base: Base, ours: list[Tensor], theirs: list[Tensor], changed: int) -> None:
    """All segments but the changed one must be the same to the last bit, which logits follow."""
    for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if at != changed and not one.equal(other):
            moved = (one - other).abs().max().item()
            raise LeakError(
                f"{base.name}: branches behind a shared prompt see each other. Changing the "
                f"{NAMES[changed]} moved the hidden states of the {NAMES[at]} by up to "
                f"{moved:.2g}. {CURE}"
            )
