"""What stands between messages: found by rendering, and the same in Go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chat_families import FAMILIES, OTHERS, Family, write_vocabulary
from graftlab.errors import ModelError
from graftlab.exports.turns import (
    CONVERSATIONS,
    PADDED,
    Turns,
    UnlikeError,
    chat,
    strips_content,
    turns_of,
)
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Message
from text_tokenizers import CHATML

BOS = "<s>"
CUT_OFF = [Message("assistant", "Hello."), *chat(None, "Who?")]
"""What is left of a conversation when Ollama drops its first messages."""
BEYOND = {
    "a dropped question": CUT_OFF,
    "a dropped question behind a system turn": [Message("system", "Be brief."), *CUT_OFF],
    "a system turn in the middle": [*chat(None, "Hi", "Hello."), *chat("Sing.", "Who?")],
    "two system turns": [Message("system", "Be brief."), *chat("", "Hi", "Hello.", "Who?")],
    "an answer begun": chat(None, "Hi", "Hello", "Who?", "He is"),
    "two questions": [*chat(None, "Hi"), *chat(None, "Who?")],
    "padded content": PADDED,
}
"""Other conversations that a template in Ollama may be given."""


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="session")
def tokenizers(vocabulary: Path) -> dict[str, Tokenizer]:
    return {name: family.load(vocabulary) for name, family in FAMILIES.items()}


def test_families_render_as_their_own_template_does(tokenizers: dict[str, Tokenizer]) -> None:
    compared, stripping = 0, set()
    for name, tokenizer in tokenizers.items():
        turns = turns_of(tokenizer, adds_bos=True)
        for kind, messages in CONVERSATIONS.items():
            try:
                wanted = tokenizer.render_text(messages, generation_prompt=True)
            except ModelError:
                assert name in ("gemma", "mistral-v0.1"), "the only ones without a system turn"
                assert messages[0].role == "system"
                continue
            assert turns.text(messages) == wanted.removeprefix(BOS), (name, kind)
            compared += 1
        stripping |= {name} if strips_content(tokenizer) else set()
    assert len(FAMILIES) >= 24
    assert compared == 9 * len(FAMILIES) - 2 * 5
    assert stripping == {"llama3", "gemma", "gemma3", "command-r"}


def test_what_is_found_is_what_the_family_writes(tokenizers: dict[str, Tokenizer]) -> None:
    found = {name: turns_of(tokenizer, adds_bos=True) for name, tokenizer in tokenizers.items()}
    assert found["llama2"].between["system", "user"] == "\n<</SYS>>\n\n"
    assert found["llama2"].between["assistant", "user"] == " </s><s>[INST] "
    assert found["mistral-v0.3"].late == "\n\n"
    assert [name for name, turns in found.items() if turns.late is not None] == ["mistral-v0.3"]
    assert not found["gemma"].has_system
    assert found["gemma3"].has_system
    forgetful = {name for name, turns in found.items() if turns.forgets_thoughts}
    assert forgetful == {"qwen3", "qwen3-tools"}
    assert found["smollm2"].between["", "user"] == (
        "<|im_start|>system\nYou are SmolLM.<|im_end|>\n<|im_start|>user\n"
    )


def test_a_bos_that_the_runtime_does_not_add_stays(tokenizers: dict[str, Tokenizer]) -> None:
    kept = turns_of(tokenizers["llama3"], adds_bos=False)
    assert kept.between["", "user"].startswith("<s><|start_header_id|>user")
    assert turns_of(tokenizers["llama3"], adds_bos=True).between["", "user"].startswith("<|start")


@pytest.mark.parametrize("name", OTHERS)
def test_other_templates_are_told_apart(name: str, vocabulary: Path) -> None:
    family, reason = OTHERS[name]
    tokenizer = family.load(vocabulary)
    with pytest.raises(UnlikeError, match=reason):
        turns_of(tokenizer, adds_bos=True)
    assert tokenizer.date is None, "as it was"


def test_a_date_that_is_only_the_default_still_changes_what_is_said(vocabulary: Path) -> None:
    text = (
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\n' + strftime_now('%Y') + "
        "'<|im_end|>\n' }}{% endif %}" + CHATML
    )
    with pytest.raises(UnlikeError, match="date"):
        turns_of(Family(text).load(vocabulary), adds_bos=True)
    unused = "{% if false %}{{ strftime_now('%Y') }}{% endif %}" + CHATML
    assert turns_of(Family(unused).load(vocabulary), adds_bos=True).has_system


ODD = Turns(
    {
        ("", "user"): 'A {{ .Content }} {\u00a0"""\u200b',
        ("user", "assistant"): '{{- "quoted" }} \U000e0001',
        ("assistant", "user"): "\t}} { {",
        ("user", ""): '"',
    }
)
"""Texts that Go or Ollama's parser would read as their own."""


def test_odd_texts_do_not_end_a_value_nor_open_an_action() -> None:
    made = ODD.go_template()
    assert '"""' not in made
    assert all(sign.isprintable() or sign in "\n\t" for sign in made)


@pytest.mark.slow
def test_go_renders_every_template_as_we_say(
    tokenizers: dict[str, Tokenizer], render: Callable[..., list[str]]
) -> None:
    """With the semantics that Ollama gives a template: messages merged, systems joined."""
    found = {name: turns_of(tokenizer, adds_bos=True) for name, tokenizer in tokenizers.items()} | {
        "odd": ODD
    }
    cases = [
        (name, kind, turns, messages)
        for name, turns in found.items()
        for kind, messages in {**CONVERSATIONS, **BEYOND}.items()
    ]
    texts = render(
        [
            (turns.go_template(), [{"Role": m.role, "Content": m.content} for m in messages])
            for _, _, turns, messages in cases
        ]
    )
    assert len(texts) == len(cases) > 24 * 15
    for (name, kind, turns, messages), text in zip(cases, texts, strict=True):
        assert text == turns.text(messages), (name, kind)


@pytest.mark.slow
def test_thinking_is_shown_in_an_answer_begun_and_nowhere_else(
    tokenizers: dict[str, Tokenizer], render: Callable[..., list[str]]
) -> None:
    template = turns_of(tokenizers["qwen3-tools"], adds_bos=True).go_template()
    thinking = {"Role": "assistant", "Content": "He.", "Thinking": "Who was it?"}
    begun = [{"Role": "user", "Content": "Who?"}, thinking]
    earlier, last = render([(template, [*begun, begun[0]]), (template, begun)])
    assert "Who was it?" not in earlier
    assert last.endswith("<|im_start|>assistant\n<think>\nWho was it?\n</think>\n\nHe.")
