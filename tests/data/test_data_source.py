"""From files to checked conversations: shapes, complaints, system prompts, splits."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from graftlab.data.check import problems_in
from graftlab.data.demo import DemoData
from graftlab.data.jsonl import JsonlData
from graftlab.data.problems import RowProblem
from graftlab.data.shapes import parse_row
from graftlab.data.source import DataSpec
from graftlab.data.split import content_hash, validation_mask
from graftlab.errors import ConfigError, DataError
from graftlab.types import Message

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
GPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
SYSTEM = {"role": "system", "content": "Be kind."}
TOOLS = [{"name": "search"}]


def chat(index: int) -> dict[str, Any]:
    answer = {"role": "assistant", "content": f"Answer {index}"}
    return {"messages": [{"role": "user", "content": f"Question {index}"}, answer]}


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.mark.parametrize(
    ("row", "shape", "tools"),
    [
        (TURNS, "messages (bare array)", ()),
        ({"messages": TURNS}, "messages", ()),
        ({"messages": TURNS, "tools": TOOLS}, "messages", tuple(TOOLS)),
        ({"conversations": GPT, "tools": json.dumps(TOOLS)}, "ShareGPT", tuple(TOOLS)),
        ({"conversations": GPT, "tools": ""}, "ShareGPT", ()),
        ({"conversations": TURNS}, "ShareGPT", ()),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "Alpaca", ()),
        ({"instruction": "Hi", "output": "Hello", "id": 7}, "Alpaca", ()),
    ],
)
def test_shapes_are_recognised(row: Any, shape: str, tools: tuple[Any, ...]) -> None:
    parsed = parse_row(row)
    assert parsed.messages == (Message("user", "Hi"), Message("assistant", "Hello"))
    assert (parsed.shape, parsed.tools) == (shape, tools)


def test_alpaca_joins_its_input_and_system_keys_become_turns() -> None:
    row = {"instruction": "Sum", "input": "1 2", "output": "3", "system": "Count."}
    messages = parse_row(row).messages
    assert [m.content for m in messages] == ["Count.", "Sum\n\n1 2", "3"]
    assert parse_row({"conversations": GPT, "system": "S"}).messages[0] == Message("system", "S")


@pytest.mark.parametrize(
    ("row", "seen"),
    [
        ("text", "a string"),
        (None, "null"),
        ({"prompt": "a", "completion": "b"}, "without a `label` of true or false"),
        ({}, "none"),
        ({"messages": "Hi"}, "must be an array, this is a string"),
        ({"messages": ["Hi"]}, "turn 1 must be an object"),
        ({"messages": [{"content": "Hi"}]}, "turn 1 has no role (keys: content)"),
        ({"messages": [{"role": "user", "content": None}]}, "turn 1 (user): content must be text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "a part of the type"),
        ({"conversations": [*GPT, {"from": "function_call", "value": "{}"}]}, "without a name"),
        ({"conversations": [{"from": "observation", "value": 3}]}, "turn 1 (tool): content must"),
        ({"messages": TURNS, "tools": "{"}, "not JSON"),
        ({"messages": TURNS, "tools": "{}"}, "must be an array of objects"),
        ({"messages": [SYSTEM, *TURNS], "system": "S"}, "two system prompts"),
        ({"messages": TURNS, "system": 3}, "system must be text"),
        ({"instruction": "a", "output": None}, "output must be text, this is null"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "history"),
    ],
)
def test_other_shapes_are_told_what_was_seen(row: Any, seen: str) -> None:
    with pytest.raises(RowProblem) as caught:
        parse_row(row)
    assert seen in str(caught.value)


def test_roles_and_contents_are_checked_all_at_once(tmp_path: Path) -> None:
    user, assistant = TURNS
    bad = {
        "turn 2 is user where assistant was due": [user, *TURNS],
        "only the first may be": [user, SYSTEM, assistant],
        "must be the assistant's": [user],
        "has no turns": [],
        "turn 1 is assistant where user was due": [assistant],
        "the role `bot`": [user, {"role": "bot", "content": "x"}],
        "Did you mean `assistant`": [user, {"role": "asistant", "content": "x"}],
        "turn 2 (assistant) is empty": [user, {"role": "assistant", "content": " \n"}],
        "reserved token <|end|>": [user, {"role": "assistant", "content": "a<|end|>b"}],
        "turn 2 (assistant) holds NUL": [user, {"role": "assistant", "content": "a\0b"}],
        "half a UTF-16 pair": [user, {"role": "assistant", "content": "\ud83d"}],
        "turn 2 (user) is empty": [user, {"role": "user", "content": ""}],
        "turn 2 is tool where assistant was due: a result follows its call": [
            user,
            {"role": "tool", "content": ""},
            assistant,
        ],
    }
    file = write(tmp_path / "chats.jsonl", [*bad.values(), TURNS])
    with pytest.raises(DataError) as caught:
        JsonlData(train=file).load(reserved=frozenset({"<|end|>", "<|e"}))
    assert len(caught.value.problems) == len(bad)
    assert "13 of 14 rows" in caught.value.summary
    for line, (wanted, problem) in enumerate(zip(bad, caught.value.problems, strict=True), 1):
        assert problem.startswith(f"{file}:{line}: ")
        assert wanted in problem
    both = caught.value.problems[-2]
    assert "where assistant was due" in both
    assert not problems_in([Message("user", "a"), Message("assistant", "b")])


def test_skipping_writes_every_reject_with_its_reason(tmp_path: Path) -> None:
    rows: list[Any] = [TURNS, {"text": "x"}, {"messages": []}, TURNS]
    file = Path(write(tmp_path / "a.jsonl", rows))
    file.write_text(file.read_text() + '{"cut\n')
    rejects = tmp_path / "run" / "rejects.jsonl"
    data = JsonlData(train=str(file), on_invalid="skip", valid_fraction=0).load(rejects=rejects)
    assert len(data.train) == 2
    assert data.rejected == 3
    assert any("3 rows left out" in note and str(rejects) in note for note in data.notes)
    entries = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [entry["line"] for entry in entries] == [2, 3, 5]
    assert {entry["source"] for entry in entries} == {str(file)}
    assert [entry["row"] for entry in entries] == [{"text": "x"}, {"messages": []}, '{"cut']
    assert "unknown shape with keys text" in entries[0]["reason"]


@pytest.mark.parametrize("name", ["cut.json", "cut.jsonl.gz"])
def test_a_file_that_is_cut_short_is_refused_even_when_skipping(tmp_path: Path, name: str) -> None:
    rows = [chat(n) for n in range(2000)]
    text = json.dumps(rows, indent=1) if name == "cut.json" else "\n".join(map(json.dumps, rows))
    data = gzip.compress(text.encode()) if name.endswith("gz") else text.encode()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="1 file cannot be read to the end") as caught:
        JsonlData(train=str(tmp_path / name), on_invalid="skip").load()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / name}:")
    assert int(problem.split(":")[1].split()[0]) > 500


def test_nothing_trainable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match="no conversation that can be trained") as caught:
        JsonlData(train=file, on_invalid="skip").load()
    assert len(caught.value.problems) == 1


def test_formats_places_and_counts_are_named(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [TURNS, {"conversations": GPT}])
    array = tmp_path / "b.json"
    array.write_text(json.dumps([chat(1), chat(2)], indent=1))
    data = JsonlData(train=[first, str(tmp_path / "b.*")], valid_fraction=0).load()
    assert data.formats == {"messages (bare array)": 1, "ShareGPT": 1, "messages": 2}
    assert [c.where for c in data.train[:3]] == [f"{first}:1", f"{first}:2", f"{array}:2 (row 1)"]
    assert "4 conversations from 2 files (messages 2" in data.notes[0]


def schema_of(title: str) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": title, "schema": {"type": "object"}}}


def test_response_formats_belong_to_the_turn_that_asks() -> None:
    two = [*TURNS, {"role": "user", "content": "And?"}, TURNS[1]]
    row = parse_row({"messages": two, "response_format": schema_of("last")})
    assert [turn.response_format for turn in row.messages] == [None, None, schema_of("last"), None]
    asked = [{**TURNS[0], "response_format": schema_of("first")}, *two[1:]]
    row = parse_row(asked)
    assert [turn.response_format for turn in row.messages] == [schema_of("first"), None, None, None]
    assert parse_row([row.messages[0].as_dict()]).messages[0] == row.messages[0]
    alpaca = {"instruction": "Hi", "output": "{}", "response_format": json.dumps(schema_of("a"))}
    assert parse_row(alpaca).messages[0].response_format == schema_of("a")
    assert parse_row({"messages": TURNS, "response_format": {"type": "text"}}) == parse_row(
        {"messages": TURNS}
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": TURNS, "response_format": {"type": "json_object"}}, "this has json_object"),
        ({"messages": TURNS, "response_format": ["a"]}, "this has an array"),
        ({"messages": TURNS, "response_format": "{"}, "a string that is not JSON"),
        ({"messages": TURNS, "response_format": {"type": "json_schema"}}, 'needs "json_schema"'),
        ([TURNS[0], {**TURNS[1], "response_format": schema_of("a")}], "the turn that asks"),
        (
            {
                "messages": [{**TURNS[0], "response_format": schema_of("a")}, TURNS[1]],
                "response_format": schema_of("b"),
            },
            "two response formats",
        ),
        ([SYSTEM, {**TURNS[0], "tools": TOOLS}, TURNS[1]], "turn 2 has tools"),
    ],
)
def test_formats_and_tools_that_cannot_be_are_told(row: Any, reason: str) -> None:
    with pytest.raises(RowProblem, match=reason):
        parse_row(row)


def test_tools_may_stand_in_the_system_turn() -> None:
    for row in ([{**SYSTEM, "tools": TOOLS}, *TURNS], {"messages": [{**SYSTEM, "tools": TOOLS}]}):
        assert parse_row(row).tools == tuple(TOOLS)


def test_an_instruction_is_not_said_twice(tmp_path: Path) -> None:
    opened = {"role": "system", "content": "Be kind. Be brief."}
    file = write(tmp_path / "a.jsonl", [[opened, *TURNS], [SYSTEM, *TURNS], TURNS])
    data = JsonlData(train=file, valid_fraction=0, default_instruction="Be kind.").load()
    said = [c.messages[0].content for c in data.train]
    assert said == ["Be kind. Be brief.", "Be kind.", "Be kind."]


def test_system_prompt_and_default_instruction(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [TURNS, [SYSTEM, *TURNS]])
    data = JsonlData(
        train=file, valid_fraction=0, system_prompt="Own.", default_instruction="You help."
    ).load()
    systems = [c.messages[0] for c in data.train]
    assert [m.content for m in systems] == ["You help. Own.", "You help. Be kind."]
    assert all(len(c.messages) == 3 for c in data.train)
    plain = JsonlData(train=file, valid_fraction=0).load()
    assert len(plain.train[0].messages) == 2
    with pytest.raises(ConfigError, match=r"data\.system_prompt contains"):
        JsonlData(train=file, system_prompt="a<s>").load(reserved=frozenset({"<s>"}))


def questions(conversations: list[Any]) -> set[str]:
    return {c.messages[-2].content for c in conversations}


def test_the_split_is_stable_when_rows_are_added(tmp_path: Path) -> None:
    rows = [chat(i) for i in range(400)]
    few = JsonlData(train=write(tmp_path / "few.jsonl", rows[:300:2])).load()
    many = JsonlData(train=write(tmp_path / "many.jsonl", rows[::-1])).load()
    assert len(few.valid) > 5
    assert questions(few.valid) < questions(many.valid)
    assert questions(few.train) < questions(many.train)
    assert 0.05 < len(many.valid) / 400 < 0.16
    other = JsonlData(train=str(tmp_path / "few.jsonl"), system_prompt="New.").load()
    assert questions(other.valid) == questions(few.valid)


def test_duplicates_fall_together_and_no_side_stays_empty() -> None:
    hashes = [content_hash((Message("user", str(i % 50)),)) for i in range(200)]
    held = validation_mask(hashes, 0.3)
    assert any(held)
    sides = {
        value: {h for v, h in zip(hashes, held, strict=True) if v == value} for value in hashes
    }
    assert all(len(side) == 1 for side in sides.values())
    assert validation_mask([2**63, 2**63 + 1], 0.1) == [True, False]
    assert validation_mask([1, 2], 0.5) == [True, False]
    assert validation_mask([1, 1], 0.5) == [False, False]
    assert validation_mask([2**63], 0.1) == [False]
    assert validation_mask([1, 2], 0.0) == [False, False]


def test_own_validation_files_and_their_overlap(tmp_path: Path) -> None:
    train = write(tmp_path / "t.jsonl", [chat(i) for i in range(5)])
    valid = write(tmp_path / "v.jsonl", [chat(4), chat(5)])
    data = JsonlData(train=train, valid=valid).load()
    assert (len(data.train), len(data.valid)) == (5, 2)
    assert any("1 conversations are in data.train as well" in note for note in data.notes)


def test_limit_reads_the_first_rows_only(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [*(chat(i) for i in range(8)), {"broken": 1}])
    data = JsonlData(train=file, valid=file, limit=3).load()
    assert len(data.train) == len(data.valid) == 3
    with pytest.raises(DataError):
        JsonlData(train=file).load()


def test_a_missing_file_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").touch()
    spec = JsonlData(train=str(tmp_path / "chat.jsonl"))
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"data\.train=.*Did you mean `chats\.jsonl`"):
        spec.check()
    assert time.perf_counter() - start < 0.05
    with pytest.raises(ConfigError, match=r"data\.valid="):
        JsonlData(train=str(tmp_path / "chats.jsonl"), valid=f"{tmp_path}/x*").check()
    JsonlData(train=str(tmp_path / "chats.jsonl")).check()


def test_specs_check_themselves() -> None:
    with pytest.raises(ConfigError, match=r"data\.train is not set"):
        JsonlData()
    with pytest.raises(ConfigError, match=r"data\.on_invalid"):
        DataSpec(on_invalid="drop")
    with pytest.raises(ConfigError, match="brings its own files"):
        DemoData(train="x.jsonl")
