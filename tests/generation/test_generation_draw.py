"""The probabilities that tokens are drawn from are those of Hugging Face's own processors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from graftlab.generation.draw import NUCLEUS, Sampler, allow
from graftlab.generation.sampling import Generation

CPU = torch.device("cpu")
WARPERS: dict[str, Any] = {
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
}


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])
@pytest.mark.parametrize("vocab", [7, 3 * NUCLEUS])
@pytest.mark.parametrize(
    "wanted",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 5},
        {"temperature": 1.0, "top_k": 100_000},
        {"temperature": 1.0, "top_p": 0.95},
        {"temperature": 2.0, "top_p": 0.02},
        {"temperature": 1.0, "min_p": 0.1},
        {"temperature": 0.8, "top_k": 900, "top_p": 0.9, "min_p": 0.01},
    ],
    ids=str,
)
def test_probabilities(wanted: dict[str, float], vocab: int, spread: float) -> None:
    """Flat and peaked, in vocabularies below and above the part that top-p sorts at first."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, vocab, generator=generator) * spread
    warpers = LogitsProcessorList([WARPERS[name](value) for name, value in wanted.items()])
    theirs = warpers(torch.zeros(4, 1, dtype=torch.long), logits).softmax(-1)
    ours = Sampler(Generation(**wanted), CPU).probabilities(logits)  # type: ignore[arg-type]
    if wanted.get("top_p") == 0.95 and spread < 1 and vocab > NUCLEUS:
        assert int((ours > 0).sum(-1).min()) > NUCLEUS  # the whole had to be sorted
    # A token on the very border of top-p may fall either way by rounding of a sum.
    assert int(((ours > 0) != (theirs > 0)).sum(-1).max()) <= (1 if "top_p" in wanted else 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3 if "top_p" in wanted else 1e-6)


def test_rows_draw_from_their_own_streams() -> None:
    sampler = Sampler(Generation(temperature=1.0, seed=4), CPU)
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    together = sampler.choose(logits, [sampler.stream() for _ in range(3)])
    alone = [sampler.choose(row[None], [sampler.stream()])[0] for row in logits]
    assert together == alone
    stream = sampler.stream()
    first, second = (sampler.choose(logits[:1], [stream]) for _ in range(2))
    assert [first, second] != [first, first]  # a stream goes on


def test_what_is_not_allowed_is_out_of_reach() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    assert allow(logits, None) is logits
    mask = torch.tensor([False, True, False, True, False])
    drawn = Sampler(Generation(temperature=3.0), CPU).probabilities(allow(logits, mask))
    assert bool(((drawn > 0) == mask).all())
