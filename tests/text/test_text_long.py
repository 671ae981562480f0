"""Long conversations: the same documents as by prefix difference, for a number of renderings
that grows with the turns and not with their square."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import graftlab.text.drafts as drafts_module
from graftlab.text.drafts import TurnDraft
from graftlab.text.long import FEW
from graftlab.text.spans import MaskProblem
from graftlab.text.tokenizer import Tokenizer
from graftlab.text.turns import TurnReader
from graftlab.types import Conversation, Message

Maker = Callable[[str], Tokenizer]
KINDS = ("chatml", "qwen2.5", "qwen3", "llama3", "gemma", "mistral")
ONE_TEXT = frozenset(KINDS) - {"qwen3"}
"""Templates that render earlier turns as they did before later ones came."""
CONTENTS = ("Hi", "Hi there", "a\n\nb", "  spaces  ", "</think>", "Über 🎵", "<b>", "assistant\n")


def conversation(answers: int, draw: random.Random, *, system: bool = False) -> Conversation:
    roles = ("user", "assistant") * answers
    messages = [Message(role, draw.choice(CONTENTS)) for role in roles]
    return Conversation((*([Message("system", "Be brief.")] if system else []), *messages))


def drafts(tokenizer: Tokenizer, given: Conversation, turns: str = "all") -> list[TurnDraft] | str:
    try:
        return TurnReader(tokenizer, train_turns=turns).drafts(given)
    except MaskProblem as problem:
        return str(problem)


@pytest.mark.parametrize("turns", ["all", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_long_conversations_are_drafted_as_by_prefix_difference(
    chat_tokenizer: Maker, monkeypatch: pytest.MonkeyPatch, kind: str, turns: str
) -> None:
    tokenizer, draw = chat_tokenizer(kind), random.Random(kind)
    found = []
    for number in range(12):
        system = kind != "gemma" and number % 2 == 0
        given = conversation(draw.randint(FEW + 1, 24), draw, system=system)
        with monkeypatch.context() as patch:
            patch.setattr(drafts_module, "FEW", 10**9)
            wanted = drafts(tokenizer, given, turns)
        found.append(drafts(tokenizer, given, turns))
        assert found[-1] == wanted
    whole = [draft for draft in found if not isinstance(draft, str) and len(draft[0].spans) > FEW]
    assert len(whole) == (12 if kind in ONE_TEXT else 0)


def rendered_turns(tokenizer: Tokenizer, given: Conversation, turns: str = "all") -> int:
    """Messages that the template was given in all, while the conversation was drafted."""
    count, render = 0, tokenizer.render_text

    def counting(messages: list[Message], **rest: object) -> str:
        nonlocal count
        count += len(messages)
        return render(messages, **rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "render_text", counting)
        made = drafts(tokenizer, given, turns)
    assert not isinstance(made, str)
    return count


@pytest.mark.parametrize(
    ("kind", "turns"), [*((kind, "all") for kind in sorted(ONE_TEXT)), ("qwen3", "last")]
)
def test_work_is_linear_in_turns(chat_tokenizer: Maker, kind: str, turns: str) -> None:
    tokenizer = chat_tokenizer(kind)
    short = rendered_turns(tokenizer, conversation(100, random.Random(0)), turns)
    long = rendered_turns(tokenizer, conversation(200, random.Random(0)), turns)
    assert long <= 2.1 * short
    assert long <= 20 * 400


def test_a_template_that_changes_with_length_is_noticed(chat_tokenizer: Maker) -> None:
    """Exchanges laid end to end are the whole text here, but the prompt of its half is another."""
    tokenizer = chat_tokenizer("chatml")
    render = tokenizer.render_text

    def odd(messages: list[Message], *, tools: object = (), generation_prompt: bool) -> str:
        text = render(messages, generation_prompt=generation_prompt)
        return text + "<note>" if generation_prompt and len(messages) == 2 * FEW + 1 else text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "render_text", odd)
        assert "announces" in str(drafts(tokenizer, conversation(2 * FEW + 1, random.Random(1))))
