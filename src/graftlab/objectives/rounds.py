"""What position-wise acceptances mean for decoding: rounds of drafting along an answer.

In a round the draft proposes up to k tokens, the teacher keeps the first of them that it would have
drawn too, and adds one of its own. Along an answer of n tokens with acceptances a[0] ... a[n - 1],

    P(i, j) = a[i] ... a[i + j - 1] (1 - a[i + j])    a round from i keeps j < k drafted tokens
    P(i, k) = a[i] ... a[i + k - 1]                   it keeps all of them
    R(i)    = 1 + sum over j of P(i, j) R(i + j + 1)  expected rounds from i to the end
    A(i)    = sum over j of P(i, j) (j + A(i + j + 1))  expected drafted tokens kept on the way

with R = A = 0 beyond the end, where nothing is left to draft. A(0) / R(0) is the expected number of
drafted tokens that a round keeps. For a long answer with a constant a it is (1 - a**(k + 1)) /
(1 - a) - 1, the formula of arXiv 2211.17192.
"""

from __future__ import annotations

from collections.abc import Sequence


def expected_rounds(acceptances: Sequence[float], *, draft_tokens: int) -> tuple[float, float]:
    """(rounds, drafted tokens kept) that are expected along one answer: R(0) and A(0)."""
    length = len(acceptances)
    rounds, kept = [0.0] * (length + 2), [0.0] * (length + 2)
    for start in range(length - 1, -1, -1):
        longest = min(draft_tokens, length - start)
        alive, here, tokens = 1.0, 1.0, 0.0
        for drafted in range(longest):
            accepted = acceptances[start + drafted]
            ends = alive * (1.0 - accepted)
            here += ends * rounds[start + drafted + 1]
            tokens += ends * (drafted + kept[start + drafted + 1])
            alive *= accepted
        beyond = min(start + longest + 1, length)
        rounds[start] = here + alive * rounds[beyond]
        kept[start] = tokens + alive * (longest + kept[beyond])
    return rounds[0], kept[0]
