"""Every key of a row and of a turn is read, refused by name, or metadata that the log names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab.data.jsonl import JsonlData
from graftlab.data.shapes import parse_row
from graftlab.data.turns import RowProblem
from graftlab.errors import DataError
from graftlab.generation.prompts import read_prompts
from graftlab.recipes.rows import record_of
from graftlab.types import Message

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
TURNS = [USER, ANSWER]
GPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
CHAT = (Message("user", "Hi"), Message("assistant", "Hello"))


def answer(**more: Any) -> dict[str, Any]:
    return {"messages": [USER, {**ANSWER, **more}]}


def row(**more: Any) -> dict[str, Any]:
    return {"messages": TURNS, **more}


REFUSED: list[tuple[Any, str]] = [
    (answer(weight=0), "turn 2 (assistant) has `weight`: 0"),
    (answer(weight=0.5), "weights of turns are not read"),
    (answer(train=False), "`train`: false"),
    (answer(loss=False), "`loss`: false"),
    (answer(loss_weight=2), "`loss_weight`: 2"),
    ({"messages": [{**USER, "weight": 1}, ANSWER]}, "only answers are trained"),
    ({"conversations": [GPT[0], {**GPT[1], "train": False}]}, "turn 2 (assistant) has `train`"),
    (row(weight=0), "weights of rows are not read"),
    (answer(reasoning_content="hm"), "`reasoning_content`: reasoning of its own key"),
    (answer(thinking="hm"), "`thinking`"),
    (answer(reasoning="hm"), "`reasoning`"),
    (row(reasoning_content="hm"), "`reasoning_content`"),
    (answer(refusal="No."), "`refusal`"),
    (answer(audio={"id": "a"}), "images, video and sound are not trained"),
    (answer(name="Ann"), "turn 2 (assistant) has `name`"),
    (answer(tool_call_id="c1"), "`tool_call_id`: tool calls"),
    (answer(tool_calls=[{"id": "c1"}]), "is a tool turn"),
    (answer(function_call={"name": "f"}), "is a tool turn"),
    (answer(masked=True), "`masked`"),
    (row(images=["bus.png"]), "`images`: images, video and sound are not trained"),
    (row(videos=["a.mp4"]), "`videos`"),
    (row(audios=["a.wav"]), "`audios`"),
    ({"messages": TURNS, "conversations": GPT}, "both `messages` and `conversations`"),
    (row(history=[["a", "b"]]), "`history`"),
    (row(chat_template_kwargs={"enable_thinking": False}), "`chat_template_kwargs`"),
    (row(functions=[{"name": "f"}]), "the older form of `tools`"),
    (row(documents=[{"text": "a"}]), "`documents`"),
    (row(rating_note="x"), "data.ignore_keys=[rating_note]"),
    (row(tols=[{"name": "f"}]), "Did you mean `tools`?"),
    (row(prompt="Something else"), "unknown key `prompt`"),
    (row(response="Another"), "unknown key `response`"),
    (row(label=1), "preference data"),
    (row(kto_tag=False), "preference data"),
    (row(chosen="a", rejected="b"), "which is not there yet"),
    (row(system="a", system_prompt="b"), "two system prompts"),
    ({"instruction": "a", "output": "b", "messages": TURNS}, "`instruction`"),
    ({"instruction": "a", "output": "b", "images": ["c"]}, "`images`"),
    ({"messages": [{**USER, "from": "gpt"}, ANSWER]}, "two roles"),
    ({"messages": [{**USER, "value": "Ho"}, ANSWER]}, "both `content` and `value`"),
    ({"messages": [{**USER, "role": ["user"]}, ANSWER]}, "its role must be text, this is an array"),
    ({"conversations": [{"from": {}, "value": "a"}]}, "its role must be text, this is an object"),
    (answer(content=[{"type": "image_url", "image_url": {}}]), "a part of the type 'image_url'"),
    (answer(content=["a"]), "a part of its content is a string"),
    (answer(content=[{"type": "text", "text": "a", "cache_control": {"a": 1}}]), "`cache_control`"),
    (answer(content=True), "this is a boolean"),
    (answer(content=3), "this is a number"),
    (row(tools="[" * 100_000), "nested more than 100 levels deep"),
    (row(tools='[{"a": 1, "a": 2}]'), "the key `a` stands twice"),
    (row(response_format="[" * 100_000), "nested more than 100 levels deep"),
]


@pytest.mark.parametrize(("bad", "reason"), REFUSED)
def test_what_would_be_lost_is_refused_by_name(bad: Any, reason: str) -> None:
    with pytest.raises(RowProblem) as caught:
        parse_row(bad)
    assert reason in str(caught.value)


SAME: list[Any] = [
    answer(weight=1),
    answer(weight=None),
    {"messages": [{**USER, "weight": 0}, {**ANSWER, "loss": True}]},
    answer(reasoning_content="", tool_calls=[], function_call=None, name=None, refusal=None),
    row(images=[], tools=[], history=[], system="", response_format=None),
    row(id=1, source="x", metadata={"a": 1}, labels={"chunk": "3"}),
    row(prompt="Hi", prompt_id="0"),
    {"instruction": "Hi", "output": "Hello", "text": "### Instruction: Hi ### Response: Hello"},
    {"messages": None, "conversations": GPT},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER]},
    {
        "messages": [
            USER,
            {**ANSWER, "content": [{"type": "text", "text": t} for t in ("Hel", "lo")]},
        ]
    },
    {"messages": [{"role": "system", "content": ""}, *TURNS]},
    {"messages": [{"role": "system", "content": None}, *TURNS]},
    {"messages": [{"role": "system", "content": " \n"}, *TURNS]},
    {"conversations": [{"from": "system", "value": None}, *GPT]},
    row(system=" "),
]


@pytest.mark.parametrize("same", SAME)
def test_what_says_nothing_more_is_read_as_if_it_were_not_there(same: Any) -> None:
    assert parse_row(same).messages == CHAT


def test_a_system_prompt_is_read_under_either_name() -> None:
    for key in ("system", "system_prompt"):
        assert parse_row(row(**{key: "Be kind."})).messages == (
            Message("system", "Be kind."),
            *CHAT,
        )
    twice = {"messages": [{"role": "system", "content": "Be kind."}, *TURNS], "system": "Be kind."}
    assert len(parse_row(twice).messages) == 3


def test_all_that_is_wrong_with_a_row_is_said_at_once() -> None:
    bad = {"messages": [USER, {**ANSWER, "weight": 0, "thinking": "a"}, {"role": 3}], "images": [1]}
    with pytest.raises(RowProblem) as caught:
        parse_row(bad)
    for part in ("`weight`", "`thinking`", "turn 3", "`images`"):
        assert part in str(caught.value)


def test_keys_that_are_named_are_passed_over() -> None:
    bad = {**answer(weight=0, note="b"), "images": ["a"], "conversations": GPT, "note": "c"}
    ignore = ["weight", "images", "conversations", "note"]
    assert parse_row(bad, ignore=ignore).messages == CHAT
    assert parse_row([USER, {**ANSWER, "weight": 0}], ignore=ignore).messages == CHAT


def test_metadata_is_named_once_in_the_log(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [row(id=n, source="x") for n in range(3)] + [answer(timestamp=3)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    data = JsonlData(train=str(file), valid_fraction=0).load()
    (note,) = [note for note in data.notes if "metadata" in note]
    assert note == "keys that are metadata and not read: id, source, timestamp"
    file.write_text(json.dumps(row(mine=1)) + "\n")
    with pytest.raises(DataError, match=r"data\.ignore_keys=\[mine\]"):
        JsonlData(train=str(file)).load()
    assert JsonlData(train=str(file), valid_fraction=0, ignore_keys=["mine"]).load().train


@pytest.mark.parametrize(("bad", "reason"), [pair for pair in REFUSED if "tool" not in pair[1]])
def test_prepare_and_prompts_lose_nothing_either(tmp_path: Path, bad: Any, reason: str) -> None:
    if isinstance(bad, dict):
        with pytest.raises(RowProblem) as caught:
            record_of(bad, origin="f:1")
        assert reason in str(caught.value)
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(bad) + "\n")
    with pytest.raises(DataError) as told:
        read_prompts(str(file))
    assert f"{file}:1: " in str(told.value)
    assert reason in str(told.value)


@pytest.mark.parametrize(
    ("role", "meant"),
    [
        *[("developer", "system"), ("model", "assistant"), ("human", "user"), ("gpt", "assistant")],
        *[("bot", "assistant"), ("User", "user"), ("asistant", "assistant")],
    ],
)
def test_roles_of_other_formats_are_told_ours(tmp_path: Path, role: str, meant: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps([{"role": role, "content": "Hi"}, ANSWER]) + "\n")
    with pytest.raises(DataError) as caught:
        JsonlData(train=str(file)).load()
    assert f"`{role}`" in str(caught.value)
    assert f"Did you mean `{meant}`?" in str(caught.value)


def test_turns_are_numbered_as_they_stand_in_the_row(tmp_path: Path) -> None:
    empty = {"role": "system", "content": ""}
    bad = {"role": "assistant", "content": ""}
    rows = [[empty, USER, bad], {"system": "S", "messages": [USER, bad]}]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(DataError) as caught:
        JsonlData(train=str(file)).load()
    found = [problem.split(": ", 1)[1] for problem in caught.value.problems]
    assert found == ["turn 3 (assistant) is empty", "turn 2 (assistant) is empty"]


@pytest.mark.parametrize("place", ["tools", "response_format"])
def test_half_a_pair_is_found_in_what_is_shown_as_json(tmp_path: Path, place: str) -> None:
    schema = {"type": "object", "description": "\ud83d"}
    shown: Any = [schema]
    if place == "response_format":
        shown = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(row(**{place: shown})) + "\n")
    with pytest.raises(DataError, match="half a UTF-16 pair"):
        JsonlData(train=str(file)).load()
