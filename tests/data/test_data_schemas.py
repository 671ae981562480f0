"""Varied schemas: the answer always keeps to what is shown, and what is drawn occurs."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from graftlab.data.answers import answer_problems, in_order, refusal, style_of
from graftlab.data.jsonl import JsonlData
from graftlab.data.schemas import SchemaAugment, augment, varied
from graftlab.errors import ConfigError, DataError
from graftlab.text.json_schema import mismatch
from graftlab.types import Conversation, Message

pytest.importorskip("llguidance")
pytest.importorskip("jsonschema")

TRACK = {
    "type": "object",
    "title": "A track",
    "properties": {
        "title": {"type": "string", "description": "As on the sleeve"},
        "year": {"type": "integer", "minimum": 1900, "maximum": 2030},
        "mood": {"enum": ["calm", "wild"]},
        "players": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "plays": {"type": "string"}},
                "required": ["name"],
            },
        },
        "label": {"type": "string"},
    },
    "required": ["title", "year"],
    "additionalProperties": False,
}
ANSWERS = [
    {"title": "Blå vals", "year": 1974},
    {"title": "Night", "year": 2001, "mood": "calm", "players": [{"name": "Ann"}]},
    {"title": "N", "year": 1999, "players": [{"name": "A", "plays": "oboe"}, {"name": "B"}]},
    {"title": "Q", "year": 1950, "label": "Blue"},
]


def wanted(schema: dict[str, Any]) -> dict[str, Any]:
    inner = {"name": "Track", "description": "What is known of a track", "schema": schema}
    return {"type": "json_schema", "json_schema": inner}


def row(answer: str, *, schema: dict[str, Any] | None = None, line: int = 1) -> Conversation:
    asked = Message("user", "Which track?", wanted(schema or TRACK))
    return Conversation((asked, Message("assistant", answer)), "rows.jsonl", line)


def shown(conversation: Conversation) -> tuple[dict[str, Any], str]:
    """(the schema that the copy shows, its answer)."""
    question, answer = conversation.messages
    assert question.response_format is not None
    return question.response_format["json_schema"]["schema"], answer.content


@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 2}])
def test_the_answer_keeps_to_every_schema_that_is_shown(style):
    rows = [
        row(json.dumps(answer, ensure_ascii=False, **style), line=line)
        for line, answer in enumerate(ANSWERS, 1)
    ]
    copies, note = augment(rows, SchemaAugment(copies=25))
    assert len(copies) == 100
    assert "4 rows with a response format became 100" in note
    seen: Counter[str] = Counter()
    for copy in copies:
        schema, text = shown(copy)
        assert mismatch(text, schema) is None
        assert refusal(text, schema) is None
        assert json.loads(text) == ANSWERS[copy.line - 1], "another order, the same answer"
        assert json.dumps(json.loads(text), ensure_ascii=False, **style) == text
        assert set(schema["required"]) <= set(schema["properties"])
        seen["reordered"] += list(json.loads(text)) != list(ANSWERS[copy.line - 1])
        seen["dropped"] += "label" not in schema["properties"]
        seen["all there"] += len(schema["properties"]) == 5
        seen["plain"] += "As on the sleeve" not in json.dumps(schema)
        seen["described"] += "As on the sleeve" in json.dumps(schema)
        inner = schema["properties"].get("players", {}).get("items", {}).get("properties", {})
        seen["deep"] += list(inner) in (["name"], ["plays", "name"])
    assert len(seen) == 6
    assert min(seen.values()) > 5, seen
    assert TRACK["properties"]["title"] == {"type": "string", "description": "As on the sleeve"}


def test_copies_depend_on_the_row_and_the_seed_alone():
    rows = [row(json.dumps(answer, ensure_ascii=False)) for answer in ANSWERS]
    spec = SchemaAugment(copies=3)
    one, all_of_them = augment(rows[1:2], spec)[0], augment(rows, spec)[0]
    assert one == all_of_them[3:6]
    assert one != augment(rows[1:2], SchemaAugment(copies=3, seed=1))[0]
    assert len({json.dumps(shown(copy)[0]) for copy in all_of_them}) > 6
    off = SchemaAugment(copies=1, reorder=0, drop_optional=0, describe=1)
    assert augment(rows, off)[0] == rows


def test_rows_without_a_schema_stay():
    plain = Conversation((Message("user", "Hi"), Message("assistant", "Hello")))
    copies, _ = augment([plain, row(json.dumps(ANSWERS[0])), plain], SchemaAugment(copies=2))
    assert copies[0] is copies[-1] is plain
    assert len(copies) == 4


def test_an_answer_written_in_a_style_of_its_own_is_not_rewritten():
    text = '{ "title": "N",  "year": 1e3 }'
    assert style_of(text) is None
    schema = {**TRACK, "properties": {**TRACK["properties"], "year": {"type": "number"}}}
    for seed in range(20):
        turns = varied(row(text, schema=schema).messages, SchemaAugment(), random.Random(seed))
        assert turns[1].content == text
    assert style_of('{"a":1}') == {"separators": (",", ":"), "indent": None, "ensure_ascii": False}
    assert in_order('\n{"year": 1, "title": "é"}\n', TRACK) == '\n{"title": "é", "year": 1}\n'


def test_a_schema_that_cannot_be_varied_goes_by_as_it_is():
    number = {"type": "integer"}
    twice = {"b": number, "a": number}
    schema = {"type": "object", "allOf": [{"properties": twice}], "properties": twice}
    text = '{"b": 2, "a": 1}'
    swapped = {**schema, "properties": {"a": number, "b": number}}
    assert refusal(text, schema) is None
    assert refusal(in_order(text, swapped), swapped) is not None, "this order cannot be written"
    for seed in range(8):
        spec = SchemaAugment(reorder=1, describe=0)
        turns = varied(row(text, schema=schema).messages, spec, random.Random(seed))
        kept = turns[0].response_format["json_schema"]["schema"]
        assert list(kept["properties"]) == ["b", "a"]
        assert refusal(turns[1].content, kept) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Sure: {}", "not JSON"),
        ('{"title": "N"}', "'year' is a required property"),
        ('{"title": "N", "year": 1800}', "1800 is less than the minimum"),
        ('{"title": "N", "year": 1990, "colour": "red"}', "'colour' was unexpected"),
        ('{ "year" : 1990, "title": "N"}', "guided generation cannot give it"),
    ],
)
def test_answers_that_guided_generation_never_gives_are_refused(tmp_path: Path, answer, reason):
    good = row(json.dumps(ANSWERS[1]))
    lines = [[m.as_dict() for m in item.messages] for item in (good, row(answer))]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = SchemaAugment(copies=2)
    with pytest.raises(DataError) as caught:
        JsonlData(train=str(file), valid_fraction=0, schema_augment=spec).load()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}:2: turn 2: ")
    assert reason in problem
    data = JsonlData(train=str(file), valid_fraction=0, schema_augment=spec, on_invalid="skip")
    assert len(data.load().train) == 2
    assert any("schema_augment" in note for note in data.load().notes)
    plain = JsonlData(train=str(file), valid_fraction=0).load()
    assert len(plain.train) == 2, "without the key nothing is asked"


def test_another_order_and_escaped_letters_are_written_as_guided_generation_does():
    asked = row('{"year": 1990, "title": "Bl\\u00e5"}')
    assert refusal(asked.messages[1].content, TRACK) is not None
    assert answer_problems(asked.messages) == []
    (copy,), _ = augment([asked], SchemaAugment(copies=1, reorder=0))
    assert shown(copy)[1] == '{"title": "Blå", "year": 1990}'


def test_answers_are_judged_as_replies_are_held():
    """By the same decimals, and by the white space that guided generation can write."""
    price = {"type": "object", "properties": {"price": {"type": "number", "multipleOf": 0.01}}}
    assert mismatch('{"price": 0.07}', price) is None
    good = json.dumps(ANSWERS[1], indent=2)
    assert answer_problems(row(good).messages) == []
    (problem,) = answer_problems(row(json.dumps(ANSWERS[1], indent="\t")).messages)
    assert "guided generation cannot give it" in problem


def test_a_schema_that_is_none_is_told():
    (problem,) = answer_problems(row("{}", schema={"type": "thing"}).messages)
    assert problem.startswith("turn 1: the schema itself is wrong: at /type")


def test_shares_are_checked():
    with pytest.raises(ConfigError, match=r"data\.schema_augment\.reorder"):
        SchemaAugment(reorder=2)


PATTERNS = ("^(a+)+$", "^(a|a)*$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a*)*b")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_that_try_every_way_end_with_a_message(
    monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """With `re` none of them ends: the text has forty letters and a mark that nothing takes."""
    monkeypatch.setattr("graftlab.text.json_patterns.LIMIT", 0.2)
    text = "a" * 40 + "!"
    value = {"type": "string", "pattern": pattern}
    closed: dict[str, Any] = {"patternProperties": {pattern: {}}, "additionalProperties": False}
    schemas = (({"properties": {"x": value}}, {"x": text}), (closed, {text: 1}))
    for schema, answer in schemas:
        said = mismatch(json.dumps(answer), {"type": "object", **schema})
        assert said is not None
        assert "takes more than" in said or "does not match" in said or "unexpected" in said


@pytest.mark.parametrize("key", ["uniqueItems", "unevaluatedItems"])
def test_keywords_that_replies_cannot_be_held_to_are_named(key: str) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "array", key: True}}}
    assert key in str(mismatch('{"x": [{"a": 1}]}', schema))
    assert key in str(refusal('{"x": [{"a": 1}]}', schema))


def test_patterns_of_a_schema_are_judged_as_before() -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string", "pattern": r"^\d{2}-[a-z]+$"}},
        "patternProperties": {"^x-": {"type": "integer"}},
        "additionalProperties": {"type": "boolean"},
    }
    assert mismatch('{"id": "12-ab", "x-a": 1, "y": true}', schema) is None
    for wrong in ('{"id": "1-ab"}', '{"x-a": "1"}', '{"y": 1}'):
        assert mismatch(wrong, schema)
    assert "is no regular expression" in str(
        mismatch('{"a": "b"}', {"properties": {"a": {"pattern": "["}}})
    )


def test_a_row_with_such_a_pattern_is_refused_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftlab.text.json_patterns.LIMIT", 0.2)
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a|a)*$"}}}
    messages = [
        {"role": "user", "content": "Which?", "response_format": wanted(schema)},
        {"role": "assistant", "content": json.dumps({"a": "a" * 40 + "!"})},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": messages}) + "\n")
    data = JsonlData(train=str(file), schema_augment=SchemaAugment(copies=1))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*pattern"):
        data.load()
