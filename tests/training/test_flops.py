"""Attention is counted by what tokens see, which a shared prompt changes."""

from __future__ import annotations

import numpy as np
import pytest

from branched import as_token_set, pair_documents
from graftlab.packing.attention import branched_mask
from graftlab.packing.rows import make_batch
from graftlab.text.encode import TokenSet
from graftlab.training.flops import attended_length


def seen_by_mask(tokens: TokenSet) -> float:
    batch = make_batch(tokens, list(range(len(tokens))), step_units=1)
    parents = batch.parents
    if parents is None:
        parents = batch.boundaries[1:] * 0 - 1
    mask = branched_mask(batch.boundaries, parents, None)
    seen = mask.sum().item() - batch.num_tokens / 2  # a token sees half of itself, so to say
    return 2 * seen / batch.num_tokens


@pytest.mark.parametrize("share", [True, False])
def test_tokens_of_branches_see_their_prompt_too(share: bool) -> None:
    tokens = as_token_set(pair_documents(), share_prompts=share)
    assert tokens.branched == share
    assert attended_length(tokens) == pytest.approx(seen_by_mask(tokens))
    picked = as_token_set(pair_documents(), share_prompts=share)
    picked.picked = np.array([1, 3])
    assert attended_length(picked) == pytest.approx(seen_by_mask(picked))
    assert attended_length(picked) != pytest.approx(attended_length(tokens))


def test_plain_documents_count_as_they_are_long() -> None:
    tokens = as_token_set(pair_documents()[3:] * 2)
    assert tokens.segments is None
    assert attended_length(tokens) == tokens.lengths.mean()
