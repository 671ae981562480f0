"""Tool calls, reasoning and weights: what of a turn is trained, with any template; and pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftlab.text.cache import cache_key
from graftlab.text.document import Document
from graftlab.text.drafts import TurnDraft
from graftlab.text.load import load_tokenizer
from graftlab.text.spans import MaskProblem
from graftlab.text.tokenizer import Tokenizer
from graftlab.text.turns import TurnReader
from graftlab.types import CHOSEN, PLAIN, REJECTED, Conversation, Message
from text_tokenizers import TEMPLATES, write_tokenizer

Maker = Callable[[str], Tokenizer]

ARGUMENTS = {"zone": "north", "deep": {"b": 1.0, "a": [True, None, 2]}, "alike": "1"}
TOOL = {"name": "look", "description": "Look.", "parameters": {"type": "object"}}


def call(name: str = "look", **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments or ARGUMENTS}}


def written(name: str = "look", **arguments: Any) -> str:
    told = json.dumps(arguments or ARGUMENTS)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {told}}}\n</tool_call>'


ASKED = Conversation(
    (
        Message("user", "What is there?"),
        Message("assistant", "", tool_calls=(call(), call("go", to="sea"))),
        Message("tool", "A quiet band."),
        Message("tool", "It goes."),
        Message("assistant", "A quiet band, and it goes."),
    ),
    tools=(TOOL,),
)


def made(tokenizer: Tokenizer, given: Conversation, **how: str) -> list[Document]:
    reader = TurnReader(tokenizer, **how)  # type: ignore[arg-type]
    found = []
    for documents in reader.documents(reader.drafts(given)):
        assert not isinstance(documents, MaskProblem), documents
        found += documents
    return found


def trained(tokenizer: Tokenizer, given: Conversation, **how: str) -> list[str]:
    """What is trained of a conversation, a text for each run of tokens."""
    texts = []
    for document in made(tokenizer, given, **how):
        marked = zip(document.ids.tolist(), document.trained.tolist(), strict=True)
        for mark, group in groupby(marked, key=lambda pair: pair[1]):
            if mark:
                texts.append(tokenizer.decode([index for index, _ in group], skip_special=False))
    return texts


def problem_of(tokenizer: Tokenizer, given: Conversation, **how: str) -> str:
    with pytest.raises(MaskProblem) as caught:
        made(tokenizer, given, **how)
    return str(caught.value)


END = "<|im_end|>"
CALLS = f"{written()}\n{written('go', to='sea')}{END}"


@pytest.mark.parametrize("kind", ["qwen3-tools", "text-arguments", "thinking"])
def test_calls_are_trained_and_results_never(chat_tokenizer: Maker, kind: str) -> None:
    tokenizer = chat_tokenizer(kind)
    found = trained(tokenizer, ASKED)
    assert found == [CALLS, f"A quiet band, and it goes.{END}"]
    (last,) = made(tokenizer, ASKED, train_turns="last")
    context = tokenizer.decode(last.ids[~last.trained].tolist(), skip_special=False)
    assert "<tool_response>\nA quiet band.\n</tool_response>" in context
    assert CALLS in context
    wrapped = json.dumps({"type": "function", "function": TOOL})
    assert wrapped in context


def test_our_own_template_shows_calls_results_and_reasoning(
    chat_tokenizer: Maker, sentencepiece_folder: Any
) -> None:
    for markers, end in ((True, END), (False, "</s>")):
        tokenizer = load_tokenizer(sentencepiece_folder(markers), template="chatml")
        thought = replace(ASKED.messages[-1], reasoning="hm")
        given = replace(ASKED, messages=(*ASKED.messages[:-1], thought))
        calls = CALLS.replace(END, end)
        assert trained(tokenizer, given)[0] == calls
        answer = f"<think>\nhm\n</think>\n\n{thought.content}{end}"
        assert trained(tokenizer, given)[1] == answer
        shown = tokenizer.render_text(given.messages, generation_prompt=False)
        assert "A quiet band." in shown.split(calls)[1]


def test_a_template_is_refused_with_what_it_lacks(chat_tokenizer: Maker) -> None:
    plain, mistral = chat_tokenizer("chatml"), chat_tokenizer("mistral")
    asked = ASKED.messages
    bare = replace(ASKED, tools=())
    assert "the row has tools, which the chat template does not show" in problem_of(plain, ASKED)
    said = problem_of(plain, bare)
    assert said.startswith("turn 2 calls tools, and the chat template does not show more than 1")
    one = replace(bare, messages=(asked[0], replace(asked[1], tool_calls=(call(),)), *asked[2:]))
    said = problem_of(chat_tokenizer("llama3"), one)
    assert said.startswith("turn 2 calls tools, and the chat template does not show tool calls")
    assert "model.template=FILE, or chatml" in said
    assert "the row has results of tools" in problem_of(mistral, bare)
    thinks = Conversation((asked[0], Message("assistant", "Hm.", reasoning="first")))
    assert "reasoning of its own key, which the chat template does not" in problem_of(plain, thinks)


def test_a_template_that_leaves_out_a_part_of_a_turn_is_refused(chat_tokenizer: Maker) -> None:
    tokenizer = chat_tokenizer("one-call")
    asked, calls, *rest = ASKED.messages
    assert "does not show more than 1 of a turn's calls" in problem_of(tokenizer, ASKED)
    beside = replace(calls, tool_calls=(call(),), content="I look.")
    given = replace(ASKED, messages=(asked, beside, *rest))
    assert "leaves out the text beside tool calls" in problem_of(tokenizer, given)
    alone = replace(given, messages=(asked, replace(beside, content=""), *rest))
    assert trained(tokenizer, alone)[0] == f"{written()}{END}"


THOUGHTS = [
    Message("assistant", "It is 3.", reasoning="one and\n\ntwo"),
    Message("assistant", "<think>\none and\n\ntwo\n</think>\n\nIt is 3."),
    Message("assistant", "It is 3.", reasoning="It is 3."),
    Message("assistant", "", reasoning="one and two", tool_calls=(call(),)),
]


@pytest.mark.parametrize("kind", ["qwen3-tools", "thinking", "chatml"])
@pytest.mark.parametrize("answer", THOUGHTS)
def test_reasoning_and_answer_are_trained_apart(
    chat_tokenizer: Maker, kind: str, answer: Message
) -> None:
    if kind == "chatml" and answer.reasoning is not None:
        return  # refused, see above
    tokenizer = chat_tokenizer(kind)
    given = Conversation((Message("user", "How many?"), answer))
    masks = {}
    for train_on in ("both", "answers", "reasoning"):
        (document,) = made(tokenizer, given, train_on=train_on)
        masks[train_on] = document.trained
    np.testing.assert_array_equal(masks["answers"] ^ masks["reasoning"], masks["both"])
    assert not (masks["answers"] & masks["reasoning"]).any()
    (said,) = trained(tokenizer, given, train_on="answers")
    assert said == (f"{written()}{END}" if answer.tool_calls else f"It is 3.{END}")
    (thought,) = trained(tokenizer, given, train_on="reasoning")
    assert thought.removeprefix("<think>\n").endswith("\n</think>\n\n")


@pytest.mark.parametrize("kind", ["qwen3-tools", "thinking"])
@pytest.mark.parametrize("train_on", ["both", "answers"])
def test_what_the_template_supplies_is_not_trained(
    chat_tokenizer: Maker, kind: str, train_on: str
) -> None:
    given = Conversation((Message("user", "How many <b></b>?"), Message("assistant", "It is 3.")))
    tokenizer = chat_tokenizer(kind)
    assert trained(tokenizer, given, train_on=train_on) == [f"It is 3.{END}"]
    (document,) = made(tokenizer, given)
    shown = tokenizer.decode(document.ids.tolist(), skip_special=False)
    assert "<think>\n\n</think>\n\nIt is 3." in shown, "the block must be there for this test"
    assert "no answer has reasoning" in problem_of(tokenizer, given, train_on="reasoning")


@pytest.mark.parametrize("train_on", ["both", "answers", "reasoning"])
def test_a_long_conversation_is_trained_as_turn_by_turn(
    chat_tokenizer: Maker, monkeypatch: pytest.MonkeyPatch, train_on: str
) -> None:
    """Its spans are found in one rendering, reasoning and all."""
    thoughts = (f"<think>\nhm {n}\n</think>\n\nAnswer {n}." for n in range(12))
    turns = [m for t in thoughts for m in (Message("user", "More?"), Message("assistant", t))]
    given, tokenizer = Conversation(tuple(turns)), chat_tokenizer("chatml")
    (found,) = made(tokenizer, given, train_on=train_on)
    monkeypatch.setattr("graftlab.text.drafts.FEW", 10**9)
    (wanted,) = made(tokenizer, given, train_on=train_on)
    np.testing.assert_array_equal(found.trained, wanted.trained)
    assert len(trained(tokenizer, given, train_on=train_on)) == 12


def test_an_empty_block_of_the_datas_own_is_trained(chat_tokenizer: Maker) -> None:
    answer = "<think>\n\n</think>\n\nIt is 3."
    given = Conversation((Message("user", "How many?"), Message("assistant", answer)))
    tokenizer = chat_tokenizer("chatml")
    assert trained(tokenizer, given) == [answer + END]
    assert trained(tokenizer, given, train_on="answers") == [f"It is 3.{END}"]


BLOCKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")


@pytest.mark.parametrize("kind", ["qwen3-tools", "thinking"])
def test_blocks_may_be_tokens_of_their_own(tmp_path: Path, kind: str) -> None:
    """As Qwen3's are, which its generation prompt may open."""
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, TEMPLATES[kind], added=BLOCKS))
    assert set(BLOCKS) <= tokenizer.markers.keys()
    assert not set(BLOCKS) & tokenizer.reserved, "an answer may hold them"
    assert trained(tokenizer, ASKED)[0] == CALLS
    for thought in THOUGHTS[:2]:
        given = Conversation((Message("user", "How many?"), thought))
        assert trained(tokenizer, given, train_on="answers") == [f"It is 3.{END}"]
        (said,) = trained(tokenizer, given, train_on="reasoning")
        assert said.removeprefix("<think>\n") == "one and\n\ntwo\n</think>\n\n"


WEIGHED = Conversation(
    (
        *(Message("user", "One?"), Message("assistant", "One.", weight=0.0)),
        *(Message("user", "Two?"), Message("assistant", "Two.", weight=0.5)),
        *(Message("user", "Three?"), Message("assistant", "Three.")),
    )
)


def test_weights_leave_turns_out_or_count_them_less(chat_tokenizer: Maker) -> None:
    tokenizer = chat_tokenizer("chatml")
    assert trained(tokenizer, WEIGHED) == [f"Two.{END}", f"Three.{END}"]
    (document,) = made(tokenizer, WEIGHED)
    assert document.weights is not None
    counts = document.weights[document.trained]
    two = len(tokenizer.encode_text([f"Two.{END}"])[0])
    assert counts.tolist() == [0.5] * two + [1.0] * (len(counts) - two)
    whole = replace(WEIGHED, messages=tuple(replace(m, weight=1.0) for m in WEIGHED.messages))
    (plain,) = made(tokenizer, whole)
    assert plain.weights is None
    np.testing.assert_array_equal(plain.ids, document.ids)
    assert plain.parts == document.parts
    first = replace(WEIGHED, messages=WEIGHED.messages[:2])
    assert "the last answer has the weight 0" in problem_of(tokenizer, first)


def test_weights_hold_where_each_answer_is_a_document(chat_tokenizer: Maker) -> None:
    found = made(chat_tokenizer("qwen3-tools"), WEIGHED)
    assert len(found) == 2
    assert found[0].weights is not None
    assert set(found[0].weights[found[0].trained]) == {0.5}
    assert found[1].weights is None


def test_a_long_conversation_has_its_weights(chat_tokenizer: Maker) -> None:
    turns = [turn for n in range(12) for turn in (Message("user", f"{n}?"), answer(n))]
    (document,) = made(chat_tokenizer("chatml"), Conversation(tuple(turns)))
    assert document.weights is not None
    assert set(document.weights[document.trained]) == {0.25, 1.0}


def answer(number: int) -> Message:
    return Message("assistant", f"Answer {number}.", weight=(0.0, 0.25, 1.0)[number % 3])


PROMPT = (
    Message("system", "Be brief."),
    *(Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "How many?")),
)
SIDES = (
    (*PROMPT, Message("assistant", "It is a good three.")),
    (*PROMPT, Message("assistant", "It is four.")),
)
PAIR = Conversation(SIDES[0], rejected=SIDES[1])


@pytest.mark.parametrize(
    "kind", ["chatml", "qwen2.5", "qwen3", "llama3", "mistral", "qwen3-tools", "thinking"]
)
def test_a_pair_is_one_document_of_both_answers_behind_one_prompt(
    chat_tokenizer: Maker, kind: str
) -> None:
    tokenizer = chat_tokenizer(kind)
    (pair,) = made(tokenizer, PAIR)
    alone = [made(tokenizer, Conversation(side), train_turns="last")[0] for side in SIDES]
    assert pair.segments is not None
    assert pair.segments[:, 1:].tolist() == [[-1, PLAIN], [0, CHOSEN], [0, REJECTED]]
    edges = np.cumsum([0, *pair.segments[:, 0]])
    pieces = [slice(start, end) for start, end in pairwise(edges)]
    assert not pair.trained[pieces[0]].any()
    for branch, side in zip(pieces[1:], alone, strict=True):
        for name in ("ids", "trained"):
            column = getattr(pair, name)
            path = np.concatenate([column[pieces[0]], column[branch]])
            np.testing.assert_array_equal(path, getattr(side, name))


def test_of_a_pair_all_answers_behind_the_prompt_are_trained(chat_tokenizer: Maker) -> None:
    more = (Message("user", "Sure?"), Message("assistant", "Yes."))
    pair = Conversation((*SIDES[0], *more), rejected=(*SIDES[1], *more))
    tokenizer = chat_tokenizer("chatml")
    said = [f"It is a good three.{END}", f"Yes.{END}", f"It is four.{END}", f"Yes.{END}"]
    assert trained(tokenizer, pair) == said
    assert trained(tokenizer, pair, train_turns="last") == [said[1], said[3]]
    reason = problem_of(chat_tokenizer("qwen3"), pair)
    assert reason.startswith("chosen: the chat template renders earlier turns otherwise")


def test_a_pair_that_the_template_makes_equal_is_refused(chat_tokenizer: Maker) -> None:
    sides = [(*PROMPT, Message("assistant", text)) for text in ("Three.", "<think>a</think>Three.")]
    tokenizer = chat_tokenizer("qwen3-tools")
    assert made(tokenizer, Conversation(sides[0], rejected=sides[1]))
    sides[1] = (*PROMPT, Message("assistant", "\nThree."))
    said = problem_of(tokenizer, Conversation(sides[0], rejected=sides[1]))
    assert "writes the same for the chosen and the rejected" in said


@pytest.mark.parametrize("desirable", [True, False])
@pytest.mark.parametrize("kind", ["chatml", "qwen3", "llama3"])
def test_of_a_judged_conversation_the_last_answer_is_trained(
    chat_tokenizer: Maker, kind: str, desirable: bool
) -> None:
    tokenizer = chat_tokenizer(kind)
    (document,) = made(tokenizer, Conversation(SIDES[0], desirable=desirable))
    (plain,) = made(tokenizer, Conversation(SIDES[0]), train_turns="last")
    np.testing.assert_array_equal(document.ids, plain.ids)
    np.testing.assert_array_equal(document.trained, plain.trained)
    assert document.segments is not None
    kind_of = CHOSEN if desirable else REJECTED
    assert document.segments.tolist() == [[len(document.ids), -1, kind_of]]


def test_tokens_are_cached_under_all_that_decides_them() -> None:
    one = Conversation(SIDES[0])
    calls = replace(ASKED.messages[1], tool_calls=(call(b=1, a=2),))
    other = replace(ASKED.messages[1], tool_calls=(call(a=2, b=1),))
    told = [
        one,
        replace(one, rejected=SIDES[1]),
        replace(one, desirable=True),
        replace(one, desirable=False),
        replace(one, messages=(*SIDES[0][:-1], replace(SIDES[0][-1], weight=0.5))),
        replace(one, messages=(*SIDES[0][:-1], replace(SIDES[0][-1], reasoning="hm"))),
        replace(one, messages=(*SIDES[0][:-1], calls)),
        replace(one, messages=(*SIDES[0][:-1], other)),
    ]
    keys = {cache_key([each], "t", "all", "both") for each in told}
    assert len(keys | {cache_key([one], "t", "all", "answers")}) == len(told) + 1


def test_a_draft_says_its_texts() -> None:
    draft = TurnDraft(PAIR, "a", (), TurnDraft(PAIR, "b", ()))
    assert (draft.texts, TurnDraft(PAIR, "a", ()).texts) == (["a", "b"], ["a"])
