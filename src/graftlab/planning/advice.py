"""What guides to adapter training say about epochs, rank, learning rate and length, with reasons.

The Ficino guide (commentary on music, 5,000 samples) and the hafs guide (a 14B coder) are the two
that give numbers by size of the data; where they disagree, both are named and validation decides.
They speak of answers; of answers that are compared, papers and recipes of DPO do.
"""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.training.guides import COMPARED, LARGE, MEDIUM, SMALL, STEP


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of guidance: on what, what is good, and why; `heed` where the run differs."""

    about: str
    text: str
    heed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisedRun:
    """What advice looks at."""

    documents: int
    epochs: float
    rank: int
    lr: float
    scale: float
    """What PEFT multiplies the update with: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""
    dora: bool
    tiny: bool
    """Whether the base is too small for what the guides say."""
    max_length: int
    longest: int
    p95: float
    over_limit: int
    early_stopping: bool
    packed: bool = True
    """Whether documents share rows."""
    compares: bool = False
    """Whether the documents are pairs or judged answers."""


def advise(run: AdvisedRun) -> list[Advice]:
    """Everything there is to say, in the order of the questions people ask."""
    return [_epochs(run), _rank(run), _rate(run), _length(run)]


def _epochs(run: AdvisedRun) -> Advice:
    count = run.documents
    if run.compares:
        low, high = 1, 3
        why = (
            "rewards are overfitted soon, often within the first epoch (arXiv 2406.02900); let "
            "validation choose (callbacks=[default,early-stopping])"
        )
    elif count < SMALL:
        low, high = 5, 100
        why = (
            "the Ficino guide wants 50 to 100 epochs below 500 samples, the hafs guide 5 to 10 "
            "below 1,000 for fear of overfitting: take many and let validation choose "
            "(callbacks=[default,early-stopping])"
        )
    elif count < MEDIUM:
        low, high = 5, 10
        why = "the hafs guide, below 1,000 samples; more of them overfit"
    elif count < LARGE:
        low, high = 3, 5
        why = (
            "both guides, for 1,000 to 10,000 samples; instruction-like tasks gain little after "
            "about 3"
        )
    else:
        low, high = 1, 3
        why = "the hafs guide, above 10,000 samples: each is seen often enough"
    heed = not low <= run.epochs <= high and not run.early_stopping
    said = f"{run.epochs:.3g} planned; " if heed else ""
    what = "preferences" if run.compares else f"{count:,} documents"
    return Advice("epochs", f"{said}{low} to {high} for {what}: {why}.", heed)


def _rank(run: AdvisedRun) -> Advice:
    count = run.documents
    if count < MEDIUM:
        low, high, size = 8, 16, "under 1,000"
    elif count < LARGE:
        low, high, size = 32, 64, "1,000 to 10,000"
    else:
        low, high, size = 128, 256, "over 10,000"
    heed = run.rank > high
    said = f"{run.rank} planned; " if run.rank < low or heed else ""
    why = "a higher rank has more room and overfits small data sooner; a lower one is cheaper"
    return Advice("rank", f"{said}{low} to {high} for {size} documents (hafs guide): {why}.", heed)


def _rate(run: AdvisedRun) -> Advice:
    share = COMPARED if run.compares else 1.0
    if run.tiny:
        return Advice(
            "learning rate",
            f"{run.lr:g}: bases of a few million parameters want "
            f"{'1e-4 to 1e-3 for preferences' if run.compares else '1e-3 to 1e-2'}; the guides "
            "speak of billions.",
        )
    low, high = (limit / run.scale * share for limit in STEP)
    product = float(f"{run.lr * run.scale / share:.6g}")
    heed = not STEP[0] <= product <= STEP[1]
    extra = ", DoRA at the lower end (its magnitudes learn as well)" if run.dora else ""
    side = "above" if product > STEP[1] else "below"
    said = f"{run.lr:g} planned, {side} what is usual; " if heed else ""
    why = (
        "a tenth of what answers take, as recipes of DPO with LoRA have it"
        if run.compares
        else "what moves the weights is lr x scale, 5e-4 and 4e-4 in the two guides. Diverged: a "
        "tenth of it; a persona in long, slow runs: down to 2e-5"
    )
    return Advice(
        "learning rate",
        f"{said}{low:.0e} to {high:.0e} at scale {run.scale:.3g}{extra}: {why}.",
        heed,
    )


def _length(run: AdvisedRun) -> Advice:
    if run.over_limit:
        return Advice(
            "context length",
            f"packing.max_length={run.max_length} drops {run.over_limit:,} documents; the longest "
            f"has {run.longest:,} tokens, 95 % have at most {run.p95:,.0f}.",
            heed=True,
        )
    text = (
        f"packing.max_length={run.max_length}: the longest document has {run.longest:,} tokens, "
        f"95 % have at most {run.p95:,.0f}."
    )
    if not run.packed:
        text += (
            " Nothing is packed, so a row is as long as its document and the limit costs nothing;"
            " packing=best-fit would fill rows with several."
        )
    elif run.max_length >= 2 * run.longest:
        text += (
            f" {-(-run.longest // 256) * 256:,} would hold every one; longer rows only make fewer, "
            "larger steps."
        )
    return Advice("context length", text)
