"""Every key of a row and of a turn is read, refused by name, or metadata that the log names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab.data.jsonl import JsonlData
from graftlab.data.problems import RowProblem
from graftlab.data.shapes import parse_row
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


def call(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


REFUSED: list[tuple[Any, str]] = [
    (answer(weight=-1), "turn 2 (assistant) has `weight`: -1: a weight is a number from 0"),
    (answer(weight="high"), "turn 2 (assistant) has `weight`: high: a weight is a number from 0"),
    (answer(loss_weight=1e300), "`loss_weight`: 1e+300"),
    (answer(loss_scale=[1]), "`loss_scale`: [1]"),
    (answer(loss=0.25), "it is true or false (a number is `weight`)"),
    (answer(weight=0, train=True), "has two weights, in weight and train"),
    ({"messages": [{**USER, "weight": 1}, ANSWER]}, "turn 1 (user) has `weight`: 1"),
    ({"conversations": [{**GPT[0], "train": True}, GPT[1]]}, "only the assistant's are trained"),
    (row(weight=0), "turns have weights, rows do not"),
    (answer(reasoning_content=["hm"]), "`reasoning_content` must be text, this is an array"),
    (answer(reasoning_content="hm", thinking="ha"), "has reasoning twice, in"),
    (answer(reasoning="hm", content="<think>ha</think>Hello"), "reasoning twice, in its content"),
    (
        {"messages": [{**USER, "thinking": "hm"}, ANSWER]},
        "reasoning is read in an assistant's turn",
    ),
    (answer(thoughts="hm"), "write it there"),
    (row(reasoning_content="hm"), "`reasoning_content`: reasoning is read in an assistant's turn"),
    (answer(refusal="No."), "`refusal`"),
    (answer(audio={"id": "a"}), "images, video and sound are not trained"),
    (answer(name="Ann"), "turn 2 (assistant) has `name`"),
    (answer(tool_call_id="c1"), "`tool_call_id`: it is read in a turn of the role `tool` alone"),
    (row(tool_calls=[{"id": "c1"}]), "`tool_calls`: tool calls are read in an assistant's turn"),
    (answer(tool_calls=[{"id": "c1"}]), "turn 2 (assistant) is a tool call without a name"),
    (answer(tool_calls={"a": 1}), "tool_calls must be an array of objects, this is an object"),
    (answer(tool_calls=[3]), "a tool call must be an object, this is a number"),
    (answer(tool_calls=[{"function": 3}]), "a tool call's function is a number, not an object"),
    (answer(tool_calls=[call("f", {}, note=1)]), "is a tool call with `note`, which is not read"),
    (answer(tool_calls=[call("f", {}, type="web")]), "a tool call of the type 'web'"),
    (answer(tool_calls=[call("f", {}, id=7)]), "the id of a tool call must be text"),
    (answer(tool_calls=[call("f", "{1}")]), "the arguments of `f` are a text that is not JSON"),
    (answer(tool_calls=[call("f", [1])]), "the arguments of `f` must be an object, this is an arr"),
    (answer(tool_calls=[call("f", '{"a": 1, "a": 2}')]), "the key `a` stands twice"),
    (answer(tool_calls=[call("f", {})], function_call={"name": "g"}), "both `tool_calls` and"),
    ({"messages": [USER, {"role": "tool", "content": "", "name": 3}, ANSWER]}, "`name` must be te"),
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
    (row(prompt="Something else"), "`prompt` says what no turn of the row does"),
    (row(response="Another"), "ignore_keys=[response]"),
    (row(label="good"), "`label`: it must be true or false"),
    (row(label=2), "`label`"),
    (row(label=True, kto_tag=False), "`label` and `kto_tag` differ"),
    (answer(chosen="a"), "a row compares answers, a turn does not"),
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
    answer(weight=1.0, train=True, loss_weight=""),
    answer(reasoning_content=" \n"),
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
    bad = {"messages": [{**USER, "weight": 1}, {**ANSWER, "cot": "a"}, {"role": 3}], "images": [1]}
    with pytest.raises(RowProblem) as caught:
        parse_row(bad)
    for part in ("`weight`", "`cot`", "turn 3", "`images`"):
        assert part in str(caught.value)


def test_keys_that_are_named_are_passed_over() -> None:
    bad = {**answer(weight=-1, note="b"), "images": ["a"], "conversations": GPT, "note": "c"}
    ignore = ["weight", "images", "conversations", "note"]
    assert parse_row(bad, ignore=ignore).messages == CHAT
    assert parse_row([USER, {**ANSWER, "weight": -1}], ignore=ignore).messages == CHAT
    compared = {
        "prompt": [{**USER, "note": 1}],
        "chosen": ANSWER,
        "rejected": {**ANSWER, "note": 2},
    }
    compared["rejected"]["content"] = "Ho"
    assert parse_row(compared, ignore=ignore).messages == CHAT


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


@pytest.mark.parametrize(("bad", "reason"), REFUSED)
def test_prepare_and_prompts_lose_nothing_either(tmp_path: Path, bad: Any, reason: str) -> None:
    with pytest.raises(RowProblem) as caught:
        record_of(bad, origin="f:1")
    assert reason in str(caught.value)
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(bad) + "\n")
    with pytest.raises(DataError) as told:
        read_prompts(str(file))
    assert f"{file}:1: " in str(told.value)
    assert reason in str(told.value)


def test_prepare_keeps_what_links_tool_turns_and_refuses_the_rest() -> None:
    asked = {"role": "assistant", "content": None, "tool_calls": [call("f", "{}", id="c1")]}
    result = {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "f"}
    weighed = {**ANSWER, "weight": 0.5, "reasoning_content": "hm"}
    good = {"messages": [{"role": "system", "content": ""}, USER, asked, result, weighed]}
    body = record_of(good, origin="f:1").body
    read = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **call("f", {})}]}
    assert body["messages"] == [USER, read, result, weighed]
    for more, reason in [
        ({"images": ["a"]}, "`images`"),
        ({"messages": [USER, {**asked, "refusal": "a"}, result, ANSWER]}, "`refusal`"),
        ({"messages": [USER, asked, {**result, "weight": 1}, ANSWER]}, "`weight`"),
    ]:
        with pytest.raises(RowProblem) as caught:
            record_of({**good, **more}, origin="f:1")
        assert reason in str(caught.value)
    metadata: set[str] = set()
    record_of({**good, "id": 3}, origin="f:1", metadata=metadata)
    assert metadata == {"id"}


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
