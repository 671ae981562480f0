"""A context reads as the whole model does, row by row, and forgets what it is told to forget."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graftlab.errors import ModelError
from graftlab.models.base import Base
from miniatures import HYBRIDS, TRANSFORMERS, WINDOW
from reading import assert_padding_is_not_read, close, tokens

Make = Callable[..., Base]


def whole(base: Base, ids: Tensor) -> Tensor:
    """Logits of the whole rows without any cache."""
    with torch.no_grad(), base.plain():
        return base.model(input_ids=ids, use_cache=False).logits.float()


@pytest.mark.parametrize("kind", [*TRANSFORMERS, *HYBRIDS])
def test_reading_in_pieces_is_reading_at_once(kind: str, make_base: Make) -> None:
    base, ids = make_base(kind), tokens(2, WINDOW + 9)
    expected = whole(base, ids)
    assert expected.std() > 0.1
    with base.context() as context:
        pieces = [context.feed(ids[:, :7]), context.feed(ids[:, 7 : WINDOW + 4])]
        pieces += [context.feed(ids[:, at : at + 1]) for at in range(WINDOW + 4, WINDOW + 9)]
        assert context.length == WINDOW + 9
    close(torch.cat(pieces, dim=1), expected)


@pytest.mark.parametrize("rewind", [False, True])
def test_only_the_last_positions(make_base: Make, rewind: bool) -> None:
    base, ids = make_base("gemma3"), tokens(1, 30)
    with base.context(rewind=rewind) as context:
        assert context.limit == 2048
        logits = context.feed(ids, last=2)
    assert logits.dtype == torch.float32
    close(logits, whole(base, ids)[:, -2:])


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_what_is_cropped_was_never_read(kind: str, make_base: Make) -> None:
    """Also behind the end of a sliding window, and several times."""
    base, ids, others = make_base(kind), tokens(1, WINDOW + 12), tokens(1, 8, seed=1)
    with base.context(rewind=True) as context:
        context.feed(ids[:, : WINDOW + 4])
        for wrong in (others, others[:, :1], others[:, :3]):
            context.feed(wrong)
        context.crop(WINDOW + 4)
        context.feed(others)
        context.crop(WINDOW + 2)
        again = context.feed(ids[:, WINDOW + 2 :])
        assert context.length == ids.shape[1]
    expected = whole(base, ids)[:, WINDOW + 2 :]
    close(again, expected)


@pytest.mark.parametrize("kind", HYBRIDS)
def test_layers_that_cannot_forget_are_refused(kind: str, make_base: Make) -> None:
    with pytest.raises(ModelError, match="cannot take back a token.*Leave draft= out"):
        make_base(kind).context(rewind=True)


@pytest.mark.parametrize("kind", [*TRANSFORMERS, *HYBRIDS])
def test_a_padded_row_reads_as_alone(kind: str, make_base: Make) -> None:
    base = make_base(kind)
    assert_padding_is_not_read(
        base, (WINDOW + 6, 5, 11), whole=lambda row: whole(base, row[None])[0]
    )


def test_the_model_is_as_before_once_it_closes(make_base: Make) -> None:
    base = make_base("qwen2")
    base.set_checkpointing(False)
    before = base.model.config._attn_implementation
    parameter = next(base.model.parameters()).requires_grad_(True)
    with base.context() as context:
        assert not base.model.training
        assert not context.feed(tokens(1, 3)).requires_grad
    assert base.model.training
    assert base.model.config._attn_implementation == before
    parameter.requires_grad_(False)
