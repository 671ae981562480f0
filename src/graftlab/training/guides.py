"""What guides to adapter training give as numbers: epochs, rank and learning rate by size.

The Ficino guide (commentary on music, 5,000 samples) and the hafs guide (a 14B coder) are the two
that give numbers by size of the data.
"""

from __future__ import annotations

SMALL, MEDIUM, LARGE = 500, 1_000, 10_000

STEP = (1e-4, 1e-3)
"""Learning rate x scale: 1e-3 x 16/32 (Ficino guide) and 2e-4 x 128/64 (hafs guide) are 5e-4 and
4e-4, though the rates themselves differ five times: what moves the weights is the product."""
GUIDES = 4.5e-4
"""Between the products of the two guides."""
COMPARED = 0.1
"""Of these rates where answers are compared: recipes of DPO with LoRA have 5e-6 to 5e-5."""
TINY = 20_000_000
"""Parameters below which the guides' learning rates do not apply."""


def usual_epochs(documents: int, *, compares: bool = False) -> int:
    """Epochs for so many documents, within the ranges that `planning/advice.py` gives."""
    if compares:
        return 3 if documents < MEDIUM else 2 if documents < LARGE else 1
    return 10 if documents < SMALL else 7 if documents < MEDIUM else 4 if documents < LARGE else 2


def usual_rank(documents: int) -> int:
    """The least rank that the guides advise for so many documents, 16 below a thousand."""
    return 16 if documents < MEDIUM else 32 if documents < LARGE else 128


def usual_rate(
    *, parameters: int, scale: float, full: bool = False, compares: bool = False
) -> float:
    """A learning rate within the ranges that `planning/advice.py` gives, to one digit.

    Between the guides' two products of rate and scale; 1e-3 for tiny bases; 2e-5 where all weights
    of a large one are trained, as Alpaca did (github.com/tatsu-lab/stanford_alpaca); COMPARED of it
    where answers are compared.
    """
    rate = 1e-3 if parameters < TINY else 2e-5 if full else GUIDES / scale
    return float(f"{rate * COMPARED if compares else rate:.0e}")
