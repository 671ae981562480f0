"""Before joint training: do neither documents nor adapters see each other, on this very model?

    two stacks           A  B  C         the same adapters, stirred; in the second, the first one
                         A' B  C         differs: B and C must not move by a single bit
    each adapter alone   A | B | C       must give what it gives beside the others

The row holds two documents, of which the first is exchanged too: copies of a row lie behind one
another, so what leaks from document to document also leaks from adapter to adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graftlab.errors import LeakError
from graftlab.models.finite import check_outputs
from graftlab.models.probe import compute_tolerance, distance, probe_batch, probe_documents
from graftlab.training.joint.stack import Stack

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base
    from graftlab.types import Batch

MOST = 4
"""Adapters that pass together in the probe: the layers treat all blocks alike."""


@torch.no_grad()
def check_apart(
    base: Base,
    adapters: Sequence[Adapter],
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    seed: int = 0,
    branches: bool = False,
) -> str:
    """Run the model jointly, jointly with changes, and alone; returns a line for the log.

    With `branches`, the second document is a branch, and its sister is exchanged like the first.

    Every adapter is compared with itself alone, `MOST` at a time. The weights are stirred for the
    probe (a fresh adapter does nothing) and put back exactly. Raises LeakError.
    """
    a, b, c, other = probe_documents(base.vocab_size, seed)
    still = c if branches else None
    row, changed = (_row(first, still, b).to(base.device) for first in (a, other))
    moving = row.num_tokens - len(b)
    worst = 0.0
    quiet = torch.compiler.set_stance("force_eager")
    with base.evaluating(), quiet, autocast():
        tolerance = compute_tolerance(base)
        for first in range(0, len(adapters), MOST):
            members = adapters[first : first + MOST]
            with _stirred(members, seed):
                alone = [_alone(base, adapter, row) for adapter in members]
                together = _together(base, members, row)
                check_outputs(base, *alone, *together)
                _require_still(base, together, _together(base, members, changed), moving)
                with _stirred(members[:1], seed + 1):
                    moved = _together(base, members, row)
            _require_apart(base, together, moved)
            apart = [distance(x, y) for x, y in zip(together, alone, strict=True)]
            worst = max(worst, *apart)
            if not worst <= tolerance:  # NaN too
                raise LeakError(
                    f"{base.name}: an adapter in joint training is {worst:.2g} apart from itself "
                    f"alone (relative L2; rounding explains {tolerance:.0e}). {CURE}"
                )
    return (
        f"documents and adapters are isolated (attention: {base.backend}): changing one leaves "
        f"the others bit-identical; joint is within {worst:.1g} of alone"
    )


CURE = "Use launcher=local: these runs train one after the other."


def _row(first: Tensor, prompt: Tensor | None, last: Tensor) -> Batch:
    """Two documents; with a prompt, the second has two branches, of which `last` is one."""
    if prompt is None:
        return probe_batch([first, last])
    return probe_batch([first, prompt, first, last], parents=(-1, -1, 1, 1))


def _together(base: Base, members: Sequence[Adapter], batch: Batch) -> list[Tensor]:
    """Hidden states (1, N, D) of each adapter, from one pass."""
    stack = Stack(base, members)
    try:
        with stack.mounted():
            return list(stack.hidden(batch).chunk(len(members), dim=1))
    finally:
        stack.release()


def _alone(base: Base, adapter: Adapter, batch: Batch) -> Tensor:
    with adapter.mounted():
        return base.hidden(batch)


def _require_still(base: Base, ours: list[Tensor], changed: list[Tensor], length: int) -> None:
    """The last document of every copy must not notice that those before it were exchanged."""
    for one, other in zip(ours, changed, strict=True):
        moved = (one[:, length:] - other[:, length:]).abs().max().item()
        if moved != 0:
            raise LeakError(
                f"{base.name}: documents of one packed row see each other in joint training "
                f"(hidden states moved by up to {moved:.2g}). {CURE}"
            )


def _require_apart(base: Base, ours: list[Tensor], moved: list[Tensor]) -> None:
    """Only the adapter whose weights were changed may notice, and it must."""
    assert not ours[0].equal(moved[0]), "the probe must change something"
    for one, other in zip(ours[1:], moved[1:], strict=True):
        if not one.equal(other):
            raise LeakError(f"{base.name}: adapters see each other in joint training. {CURE}")


@contextmanager
def _stirred(adapters: Sequence[Adapter], seed: int) -> Iterator[None]:
    """Every weight moved by a little noise; the very same values come back."""
    kept = [(p, p.detach().clone()) for adapter in adapters for _, p in adapter.named_parameters()]
    generator = torch.Generator().manual_seed(seed)
    for parameter, data in kept:
        noise = torch.randn(data.shape, generator=generator).to(data.device, data.dtype)
        parameter.copy_(data + 0.02 * noise)
    try:
        yield
    finally:
        for parameter, data in kept:
            parameter.copy_(data)
