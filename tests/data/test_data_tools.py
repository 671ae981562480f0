"""Tool calls in every form become one, with arguments as they were; weights and prompts beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab.data.jsonl import JsonlData
from graftlab.data.shapes import parse_row
from graftlab.errors import ConfigError, DataError
from graftlab.generation.prompts import read_prompts
from graftlab.text.frame import load_frame
from graftlab.types import Message

ARGUMENTS = {"zone": "north", "deep": {"b": 1.0, "a": [True, None, 2]}, "alike": "1"}
FUNCTION = {"name": "look", "arguments": ARGUMENTS}
TEXT = {"name": "look", "arguments": json.dumps(ARGUMENTS)}
CALL = {"type": "function", "function": FUNCTION}
ASK, TOLD = {"role": "user", "content": "Hi"}, {"role": "tool", "content": "3"}
END = {"role": "assistant", "content": "It is 3."}


def answer(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, **more}


FORMS: list[list[dict[str, Any]]] = [
    [ASK, answer(tool_calls=[CALL]), TOLD, END],
    [ASK, answer(tool_calls=[{"function": TEXT, "index": 0, "id": None}]), TOLD, END],
    [ASK, answer(tool_calls=json.dumps([FUNCTION]), content=""), TOLD, END],
    [ASK, answer(function_call=TEXT), {"role": "function", "content": "3"}, END],
    [ASK, {"role": "function_call", "content": json.dumps(FUNCTION)}, TOLD, END],
    [
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": json.dumps(FUNCTION)},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "It is 3."},
    ],
    [
        {"from": "human", "value": "Hi"},
        {"from": "tool_call", "value": [TEXT]},
        {"from": "tool_response", "value": [{"type": "text", "text": "3"}]},
        {"from": "gpt", "value": "It is 3."},
    ],
]


@pytest.mark.parametrize("turns", FORMS)
def test_calls_of_every_form_are_one_and_their_arguments_as_they_were(turns: Any) -> None:
    messages = parse_row({"conversations": turns}).messages
    assert [turn.role for turn in messages] == ["user", "assistant", "tool", "assistant"]
    (call,) = messages[1].tool_calls
    assert call == CALL
    assert json.dumps(call) == json.dumps(CALL)  # order and types too, and no key more
    assert (messages[1].content, messages[2].content) == ("", "3")
    assert messages[1].text == json.dumps(FUNCTION)


def test_several_calls_of_a_turn_stay_in_it_and_ids_link_results() -> None:
    calls = [{"id": f"call{n}", **CALL} for n in range(2)]
    results = [{**TOLD, "tool_call_id": f"call{n}", "name": "look"} for n in range(2)]
    row = {"messages": [ASK, answer(tool_calls=calls, content="I look."), *results, END]}
    messages = parse_row(row).messages
    assert [call["id"] for call in messages[1].tool_calls] == ["call0", "call1"]
    assert messages[1].text.splitlines() == ["I look.", *[json.dumps(FUNCTION)] * 2]
    assert messages[3].as_dict() == {**results[1]}
    turns = [
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": json.dumps([FUNCTION, FUNCTION])},
        {"from": "function_call", "value": json.dumps(FUNCTION)},
    ]
    messages = parse_row({"conversations": turns}).messages
    assert [len(turn.tool_calls) for turn in messages] == [0, 2, 1]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([ASK, TOLD, END], "turn 2 is tool where assistant was due: a result follows its call"),
        ([ASK, answer(tool_calls=[CALL]), ASK, END], "turn 3 is user where tool was due"),
        ([ASK, answer(tool_calls=[CALL]), TOLD], "the last turn is tool: it must be the assist"),
        ([ASK, answer(tool_calls=[CALL]), END], "turn 3 is assistant where tool was due"),
        ([ASK, answer(tool_calls=[CALL], weight=-1), TOLD, END], "`weight`: -1"),
        ([ASK, answer(tool_calls=[{"name": "a<|end|>"}])], "the tool_calls of turn 2 (assistant)"),
        ([ASK, {**END, "reasoning_content": "<|end|>"}], "the reasoning of turn 2 (assistant)"),
    ],
)
def test_what_is_out_of_place_is_told(tmp_path: Path, turns: Any, reason: str) -> None:
    file = write(tmp_path, [{"messages": turns}])
    with pytest.raises(DataError) as caught:
        JsonlData(train=file).load(reserved=frozenset({"<|end|>"}))
    assert f"{file}:1: " in caught.value.problems[0]
    assert reason in caught.value.problems[0]


def write(folder: Path, rows: list[Any]) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_calls_of_no_listed_tool_are_told_and_trained(tmp_path: Path) -> None:
    listed: list[Any] = [{"name": "look"}]
    wrapped = [{"type": "function", "function": {"name": "look"}}]
    rows = [{"messages": FORMS[0], "tools": tools} for tools in (listed, wrapped, [{"name": "x"}])]
    file = write(tmp_path, rows)
    data = JsonlData(train=file, valid_fraction=0).load()
    assert len(data.train) == 3
    (note,) = [note for note in data.notes if note.startswith("!")]
    assert note == (
        f"! data.train: 1 row calls a tool that its `tools` do not list, such as {file}:3: look"
    )


def test_turns_keep_their_weights_and_reasoning() -> None:
    row = [ASK, {**END, "weight": 0.25, "thinking": "1 + 2"}, ASK, {**END, "train": False}]
    messages = parse_row(row).messages
    assert [turn.weight for turn in messages] == [1, 0.25, 1, 0]
    assert messages[1].reasoning == "1 + 2"
    assert messages[1].as_row() == {**END, "reasoning_content": "1 + 2", "weight": 0.25}
    assert "weight" not in messages[1].as_dict()  # no template is given it


def test_prompts_end_with_a_question_or_a_result(tmp_path: Path) -> None:
    rows = [
        {"messages": FORMS[0]},
        {"messages": FORMS[0][:3]},
        {"messages": FORMS[0][:2]},
        {"prompt": "Hi", "chosen": "Good", "rejected": "Bad"},
        {"messages": [ASK, END], "label": True},
        {"messages": [ASK, END], "label": False},
    ]
    prompts = read_prompts(write(tmp_path, rows))
    lasts = [prompt.conversation.messages[-1] for prompt in prompts]
    assert lasts == [Message("tool", "3")] * 2 + [Message("user", "Hi")] * 4
    references = [prompt.expected for prompt in prompts]
    assert references == ["It is 3.", None, json.dumps(FUNCTION), "Good", "It is 3.", None]
    assert not any(prompt.conversation.rejected for prompt in prompts)
    frame = load_frame("systems-theologian")
    with pytest.raises(ConfigError, match=r"rows\.jsonl:1: a frame goes around a user turn"):
        frame.apply(prompts[0].conversation)
