"""Why an export answers otherwise, as far as its answers tell: no adapter, another scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftlab.exports.parity.measure import Measured, divergence
from graftlab.exports.parity.reference import answered, loaded

if TYPE_CHECKING:
    from graftlab.exports.parity.rows import Row
    from graftlab.exports.source import Trained

NEAR = 0.05
"""Share of the divergence that is left where an explanation explains it."""


def reasons(
    found: Measured, adapter: Trained, rows: Sequence[Row], *, tolerance: float
) -> list[str]:
    """What the answers tell; the trained model is loaded once more, to try other scales."""
    near = max(tolerance, NEAR * min(found.kl, found.moved))
    if found.kl_base <= near:
        return ["it answers as the base alone: the adapter is not in it"]
    if found.kl_control is not None and not found.kl_control <= near:
        return ["the base by itself answers otherwise there: it is another base"]
    scale = _scale(found, adapter, rows, near)
    if scale is None:
        return []
    return [
        f"it answers as the adapter at {scale:g} times its scale: the scale is wrong, or the rest "
        "is lost to rounding"
    ]


def _scale(found: Measured, adapter: Trained, rows: Sequence[Row], near: float) -> float | None:
    """The scale at which training's code answers as the export does; None where none does."""
    trained = adapter.on_base
    assert trained is not None, "the gate needs it"
    best: tuple[float, float] | None = None
    with loaded(trained) as (base, placed):
        for scale in _scales(adapter):
            with placed.scaled(scale):
                pairs = zip(rows, found.scores, strict=True)
                told = sum(divergence(answered(base, row), scores) for row, scores in pairs)
            kl = told / found.positions
            if best is None or kl < best[0]:
                best = kl, scale
    return best[1] if best is not None and best[0] <= near else None


def _scales(adapter: Trained) -> list[float]:
    """What mistakes make of a scale: a half, rsLoRA's root left out or put in, alpha forgotten."""
    rank = float(max(adapter.ranks, default=1))
    alpha = adapter.alpha
    known = {0.5, 2.0, rank**0.5, rank, alpha, alpha / rank} - {0.0}
    return sorted(known.union(1 / scale for scale in known) - {1.0})
