"""How sure the change of a mean loss is: a paired interval over the held-out documents."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt

from graftlab.statistics import t_quantile

LEVEL = 0.95

Documents = list[tuple[float, float]]
"""(summed loss, what it is divided by) of each document: labels, their weights, or 1 of a pair."""


def paired_interval(
    base: Sequence[tuple[float, float]], tuned: Sequence[tuple[float, float]]
) -> tuple[float, float] | None:
    """The `LEVEL` interval of tuned minus base in loss per label, over the same documents.

    Documents are the independent units, as the tokens of one are alike, and each is its own
    control: paired and clustered as in "Adding error bars to evals" (Miller 2024, arXiv
    2411.00640). The change is D = sum(d) / sum(n), with d the change of a document's summed loss
    and n its labels: a ratio of sums, whose variance over m documents is

        m / (m - 1) * sum((d - D n)**2) / sum(n)**2

    (the ratio estimator, Cochran 1977, "Sampling Techniques", section 6.4); the quantile is that
    of Student's t with m - 1 degrees of freedom. None of fewer than two documents with labels, or
    where a loss is not finite.
    """
    assert [labels for _, labels in base] == [labels for _, labels in tuned], "the same documents"
    pairs = [
        (after - before, labels)
        for (before, labels), (after, _) in zip(base, tuned, strict=True)
        if labels
    ]
    count, total = len(pairs), sum(labels for _, labels in pairs)
    if count < 2 or not all(isfinite(change) for change, _ in pairs):
        return None
    mean = sum(change for change, _ in pairs) / total
    squares = sum((change - mean * labels) ** 2 for change, labels in pairs)
    error = sqrt(count / (count - 1) * squares) / total
    half = t_quantile((1 + LEVEL) / 2, count - 1) * error
    return mean - half, mean + half
