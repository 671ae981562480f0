"""Options behind a prompt that is read once are as likely as each with the prompt anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from graftlab.errors import ModelError
from graftlab.evaluation.likelihoods import option_likelihoods
from graftlab.models.base import Base

PROMPT = [5, 9, 33, 7, 12, 40]
OPTIONS = [[3, 8, 21], [17], [3, 8, 9, 30, 2], [17, 4]]


@pytest.mark.parametrize("kind", ["qwen2", "gemma3"])
def test_the_same_as_one_by_one(make_base: Callable[[str], Base], kind: str) -> None:
    base = make_base(kind)
    found = option_likelihoods(base, PROMPT, OPTIONS, where="here")
    for option, total in zip(OPTIONS, found, strict=True):
        with base.context() as context:
            logits = context.feed(torch.tensor([PROMPT + option[:-1]]))[0, len(PROMPT) - 1 :]
        alone = logits.log_softmax(-1)[range(len(option)), option].sum()
        assert total == pytest.approx(float(alone), abs=1e-4)
    assert len(set(found)) == 4


def test_what_has_no_likelihood(make_base: Callable[[str], Base]) -> None:
    base = make_base("qwen2")
    with pytest.raises(ModelError, match="here: an option has no tokens"):
        option_likelihoods(base, PROMPT, [[1], []], where="here")
    with pytest.raises(ModelError, match="has room for"):
        option_likelihoods(base, PROMPT * 100_000, [[1], [2]], where="here")
