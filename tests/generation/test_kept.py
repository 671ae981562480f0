"""A kept context says what a fresh one says, and reads only what is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graftlab.errors import ModelError
from graftlab.generation import kept as module
from graftlab.generation.draw import Sampler
from graftlab.generation.kept import KeptContext
from graftlab.generation.loop import decode
from graftlab.generation.sampling import Generation
from graftlab.generation.turn import Turn
from graftlab.models.base import Base
from miniatures import HYBRIDS, WINDOW
from reading import tokens
from slower import mostly_slow
from table_models import CPU, table_base

VOCAB = 6


def turn_of(prompt: list[int], *, room: int = 6, seed: int = 0, **how: Any) -> Turn:
    sampler = Sampler(Generation(temperature=0.9, seed=seed, max_new_tokens=room), CPU)
    return Turn(prompt, sampler, where="prompt", stop_ids=(VOCAB - 1,), **how)


def afresh(base: Any, prompt: list[int], **how: Any) -> list[int]:
    turn = turn_of(prompt, **how)
    decode(base, [turn])
    return turn.ids


@given(st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30), max_size=5))
def test_any_prompts_one_after_the_other(prompts: list[list[int]]) -> None:
    """Of a model whose every answer depends on how much it has read."""
    base, other = (table_base(seed=1, vocab=VOCAB) for _ in range(2))
    context = KeptContext(base)  # type: ignore[arg-type]
    held: list[int] = []
    for seed, prompt in enumerate(prompts):
        turn = turn_of(prompt, seed=seed)
        before = len(base.fed)
        read = context.decode(turn)
        assert turn.ids == afresh(other, prompt, seed=seed)
        same = 0
        while same < min(len(held), len(prompt) - 1) and held[same] == prompt[same]:
            same += 1
        assert read == len(prompt) - same
        assert sum(base.fed[before:]) == read + len(turn.ids) - 1
        held = turn.tokens[:-1]


@pytest.mark.parametrize(
    "kind",
    mostly_slow(["qwen2", "gemma3", "granite", *HYBRIDS], "qwen2", "gemma3", *list(HYBRIDS)[::4]),
)
def test_a_conversation_that_goes_on(kind: str, make_base: Callable[[str], Base]) -> None:
    """Beyond a sliding window, too, and where a later prompt takes words of the answer back."""
    base = make_base(kind)
    context, prompt = KeptContext(base), tokens(1, WINDOW + 5)[0].tolist()
    for round_ in range(4):
        expected = afresh(base, prompt, room=8)
        turn = turn_of(prompt, room=8)
        read = context.decode(turn)
        assert turn.ids == expected
        assert len(set(expected)) > 2
        if kind in HYBRIDS or not round_:
            assert read == len(prompt)
        else:
            assert read == 9 + round_  # the question, and what the template wrote otherwise
        question = tokens(1, 8, seed=round_)[0].tolist()
        end = len(turn.tokens) - 2 - round_
        changed = turn.tokens[end] + 1
        prompt = [*turn.tokens[:end], *[changed] * (2 + round_), *question]


def test_it_is_read_in_pieces_and_may_be_cancelled_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PIECE", 4)
    base = table_base(seed=2, vocab=VOCAB)
    context = KeptContext(base)  # type: ignore[arg-type]
    turn = turn_of([0, 1, 2, 3] * 3)
    base.fed = Cancelling(turn, after=2)
    assert context.decode(turn) == 8
    assert turn.ids == []
    assert base.fed == [4, 4]
    base.fed = []
    again = turn_of([0, 1, 2, 3] * 3)
    assert context.decode(again) == 4
    assert again.ids == afresh(table_base(seed=2, vocab=VOCAB), [0, 1, 2, 3] * 3)


class Cancelling(list[int]):
    """Notes the passes; cancels a turn after some of them."""

    def __init__(self, turn: Turn, *, after: int) -> None:
        self.turn, self.after = turn, after

    def append(self, count: int) -> None:
        super().append(count)
        if len(self) == self.after:
            self.turn.cancel()


def test_a_cancelled_reply_goes_on_from_where_it_was() -> None:
    base = table_base(seed=3, vocab=VOCAB)
    context = KeptContext(base)  # type: ignore[arg-type]
    turn = turn_of([0, 1, 2], room=20)
    turn.stop_ids = ()
    base.fed = Cancelling(turn, after=3)
    context.decode(turn)
    assert len(turn.ids) == 2
    following = turn_of([*turn.tokens, 4])
    assert context.decode(following) == 1
    assert following.ids == afresh(table_base(seed=3, vocab=VOCAB), [*turn.tokens, 4])


def test_a_pass_that_is_torn_leaves_nothing_behind(
    make_base: Callable[[str], Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some layers have read the token then, and others have not."""
    base, prompt = make_base("qwen2"), tokens(1, 12)[0].tolist()
    expected = afresh(base, prompt)
    context = KeptContext(base)
    context.decode(turn_of(prompt))
    layer: Any = base.layers[1]
    real = layer.forward

    def torn(*_: Any, **__: Any) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(layer, "forward", torn)
    with pytest.raises(KeyboardInterrupt):
        context.decode(turn_of([*prompt[:8], 7, 7]))
    monkeypatch.setattr(layer, "forward", real)
    turn = turn_of(prompt)
    assert context.decode(turn) == len(prompt)
    assert turn.ids == expected


def test_a_prompt_that_does_not_fit_changes_nothing() -> None:
    base = table_base(seed=4, vocab=VOCAB, limit=8)
    context = KeptContext(base)  # type: ignore[arg-type]
    context.decode(turn_of([0, 1, 2], room=2))
    with pytest.raises(ModelError, match="has room for 8"):
        context.decode(turn_of([0, 1, 2] * 3))
    turn = turn_of([0, 1, 2, 4], room=2)
    assert context.decode(turn) == 1
    assert turn.ids == afresh(base, [0, 1, 2, 4], room=2)


def test_weights_that_are_not_finite_are_told(make_base: Callable[[str], Base]) -> None:
    base = make_base("llama")
    with torch.no_grad():
        base.model.lm_head.weight[3, 5] = float("nan")
    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        KeptContext(base).decode(turn_of([1, 2, 3]))
