"""Before training: do packed documents really not see each other, on this very model?

    row          A A A A A | B B B B B B B | C C C
    changed row  X X X X X | B B B B B B B | C C C      B and C must not move by a single bit
    alone                    B B B B B B B              B must be what it is beside A
    own                      B B B B B B B              and in the model's own attention
    own, other end           B B B B B X X              whose beginning may not see the end

Transformers isolates documents only under conditions that are easy to miss, and hybrids with
convolutions or recurrences not at all: those compute each document in a pass of its own. Nothing
but running the model tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from graftlab.errors import GraftlabError, LeakError, ModelError
from graftlab.models.base import AttachedAdapter, Base
from graftlab.models.finite import check_outputs
from graftlab.packing.runs import find_runs
from graftlab.types import IGNORE, Batch

LENGTHS = (23, 41, 17)  # tokens of the documents A, B and C
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""Largest relative distance (L2) between packed and alone that rounding explains, by dtype."""
KERNELS = 4
"""How much further apart another attention's rounding may bring them."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the model computes for documents B and C: hidden states (T, D) and logits (T, V)."""

    hidden: Tensor
    logits: Tensor


@torch.no_grad()
def check_isolation(
    base: Base,
    adapter: AttachedAdapter | None,
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    seed: int = 0,
) -> str:
    """Run the model on a packed row, a changed one, and alone; returns a line for the log.

    `autocast` makes the context training computes in. The adapter's weights are stirred for the
    probe (a fresh adapter does nothing) and put back exactly. Raises LeakError, and ModelError
    naming the weight where what the model computes is not finite.
    """
    a, b, c, other = probe_documents(base.vocab_size, seed)
    quiet = torch.compiler.set_stance("force_eager")
    with _explained(base), stirred(adapter, seed), base.evaluating(), quiet, autocast():
        packed = _see(base, [a, b, c], skip=1)
        changed = _see(base, [other, b, c], skip=1)
        alone = _join(_see(base, [b]), _see(base, [c]))
        tolerance = compute_tolerance(base)
    check_outputs(base, packed.hidden, packed.logits)
    moved = {
        "hidden states": (changed.hidden - packed.hidden).abs().max().item(),
        "logits": (changed.logits - packed.logits).abs().max().item(),
    }
    if any(moved.values()):  # NaN counts as moved
        with _explained(base), base.evaluating(), quiet, autocast():
            _require_decoder(base, b, other)  # an encoder is not to be cured
        raise LeakError(_leak(base, moved))
    apart = max(distance(packed.hidden, alone.hidden), distance(packed.logits, alone.logits))
    if not apart <= tolerance:
        raise LeakError(_unlike(base, apart, tolerance))
    line = check_alone(base, adapter, autocast=autocast, seed=seed)
    if base.stateful_layers or base.backend == "own":
        return line
    return (
        f"documents are isolated (attention: {base.backend}): changing one leaves "
        f"the others bit-identical; packed is within {apart:.1g} of alone"
    )


@torch.no_grad()
def check_alone(
    base: Base,
    adapter: AttachedAdapter | None,
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    seed: int = 0,
) -> str:
    """Compare documents, each alone in a batch, with the model's own forward pass and attention.

    Returns a line for the log. Raises LeakError, and ModelError where what is computed is not
    finite, is drawn at random, or looks ahead.
    """
    _, b, c, other = probe_documents(base.vocab_size, seed)
    quiet = torch.compiler.set_stance("force_eager")
    with _explained(base), stirred(adapter, seed), quiet, autocast():
        with base.evaluating():
            _require_decoder(base, b, other)
        _require_fixed(base, b)
        with base.evaluating():
            own = [_own(base, one) for one in (b, c)]
            ours = _join(_see(base, [b]), _see(base, [c]))
        tolerance = compute_tolerance(base) * KERNELS
    check_outputs(base, ours.hidden, ours.logits)
    apart = distance(ours.logits, torch.cat(own))
    if not apart <= tolerance:
        raise LeakError(
            f"{base.name}: a document is not computed as the model itself computes it: the logits "
            f"are {apart:.2g} apart (relative L2; rounding explains {tolerance:.0e}). {_cure(base)}"
        )
    layers = f"{', '.join(base.stateful_layers)} layers, " if base.stateful_layers else ""
    return (
        f"one document at a time ({layers}attention: {base.backend}): within {apart:.0e} of the "
        "model's own forward pass"
    )


def _own(base: Base, document: Tensor) -> Tensor:
    return base.own_logits(document[None].to(base.device))[0]


def _require_decoder(base: Base, document: Tensor, end: Tensor) -> None:
    """What the model itself makes of a document's beginning must not hang on its end."""
    start = len(document) // 2
    one, other = (_own(base, torch.cat([document[:start], rest])) for rest in (document, end))
    if distance(other[:start], one[:start]) > compute_tolerance(base):
        raise ModelError(
            f"{base.name} is no decoder: what it makes of a token depends on the tokens after it, "
            "as encoders such as BERT do. Those cannot be trained here."
        )


def _require_fixed(base: Base, document: Tensor) -> None:
    """In the mode that training computes in, two passes over a document must be one."""
    with torch.random.fork_rng(devices=[]):
        first, second = (_see(base, [document]).hidden for _ in range(2))
    apart = distance(first, second)
    if apart > compute_tolerance(base):
        raise ModelError(
            f"{base.name} draws at random while it trains: two passes over the same tokens are "
            f"{apart:.2g} apart. Such a base has no fixed behaviour to adapt, and is not trained."
        )


@contextmanager
def _explained(base: Base) -> Iterator[None]:
    """Errors of a model's code, which expects another way of being called, say whose they are."""
    try:
        yield
    except GraftlabError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{base.name} cannot be computed in {base.backend} attention: "
            f"{type(error).__name__}: {error}. {_cure(base)}"
        ) from error


def probe_documents(vocab_size: int, seed: int) -> list[Tensor]:
    """Documents A, B, C of random tokens, and an A that differs everywhere."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = (torch.randint(vocab_size, (n,), generator=generator) for n in LENGTHS)
    return [a, b, c, (a + vocab_size // 2) % vocab_size]


def probe_batch(documents: list[Tensor], parents: Sequence[int] | None = None) -> Batch:
    """The documents laid end to end, without labels; with `parents`, segments of documents."""
    ids = torch.cat(documents)
    boundaries = torch.tensor([0, *map(len, documents)]).cumsum(0).to(torch.int32)
    tree = None if parents is None else torch.tensor(parents, dtype=torch.int32)
    positions = [torch.arange(len(document)) for document in documents]
    if tree is not None:
        runs = find_runs(boundaries, tree)
        positions = [torch.arange(run.end - run.start) + run.before for run in runs]
    return Batch(
        input_ids=ids[None],
        labels=torch.full_like(ids, IGNORE)[None],
        positions=torch.cat(positions)[None],
        boundaries=boundaries,
        step_units=1,
        parents=tree,
    )


def _see(base: Base, documents: list[Tensor], *, skip: int = 0) -> _Seen:
    """Hidden states and logits of all documents but the first `skip`."""
    start = sum(len(document) for document in documents[:skip])
    hidden = base.hidden(probe_batch(documents).to(base.device))[0, start:]
    return _Seen(hidden, base.logits(hidden))


def _join(first: _Seen, second: _Seen) -> _Seen:
    hidden = torch.cat([first.hidden, second.hidden])
    return _Seen(hidden, torch.cat([first.logits, second.logits]))


def compute_tolerance(base: Base) -> float:
    """What rounding explains, in the context that is on at the moment."""
    kind = base.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.dtype
    return TOLERANCE[dtype]


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative L2 distance."""
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


@contextmanager
def stirred(adapter: AttachedAdapter | None, seed: int) -> Iterator[None]:
    """Every adapter weight moved by a little noise; the very same tensors come back."""
    if adapter is None:
        yield
        return
    generator = torch.Generator().manual_seed(seed)
    kept = [(parameter, parameter.data) for _, parameter in adapter.named_parameters()]
    for parameter, data in kept:
        noise = torch.randn(data.shape, generator=generator).to(data.device, data.dtype)
        parameter.data = data + 0.02 * noise
    try:
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data


def _leak(base: Base, moved: dict[str, float]) -> str:
    amounts = " and ".join(f"{what} by up to {by:.2g}" for what, by in moved.items())
    return (
        f"{base.name}: documents in one packed row see each other. Changing the first document "
        f"moved the {amounts} in the ones after it. {_cure(base)}"
    )


def _unlike(base: Base, apart: float, tolerance: float) -> str:
    return (
        f"{base.name}: a document packed with others is not computed as it is alone: the outputs "
        f"are {apart:.2g} apart (relative L2; rounding explains {tolerance:.0e}). {_cure(base)}"
    )


def _cure(base: Base) -> str:
    if base.backend == "own":
        return "No attention of transformers' serves."
    return (
        f"Attention was {base.backend}; model.attention=dense may serve. What always does is "
        "model.attention=own: each document is computed by itself, in the model's own attention."
    )
