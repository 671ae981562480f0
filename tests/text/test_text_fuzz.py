"""Rows of real shapes, mutated: each is read, or refused with file and line; nothing crashes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftlab.data.jsonl import JsonlData
from graftlab.data.keys import METADATA, REPEATED, WEIGHTS
from graftlab.data.problems import RowProblem
from graftlab.errors import DataError
from graftlab.generation.prompts import read_prompts
from graftlab.recipes.record import is_piece
from graftlab.recipes.rows import record_of
from graftlab.text.encode import encode
from graftlab.text.show import shown_branches
from graftlab.text.tokenizer import Tokenizer

TEXTS = st.one_of(
    st.sampled_from(["Hi", "Hello.", "", " \n", "<|im_end|>", "<think>a</think>b", "\0", "\ud83d"]),
    st.sampled_from(
        ["a\u2028b\u2029c\x85d", "é 漢字 🎵", "</s>", "[1]", '{"a": 1}', "[" * 500, "1e999"]
    ),
    st.text(max_size=8),
)
DEEP = st.sampled_from([99, 101, 400, 2000]).map(lambda n: Raw("[" * n + "]" * n))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.just(10**40),
    st.sampled_from([0.5, -1e300]),
    TEXTS,
)


class Raw(str):
    """JSON that is written as it stands."""


VALUES = st.recursive(
    SCALARS | DEEP,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(TEXTS, VALUES, max_size=2)
CALLED = st.fixed_dictionaries(
    {"name": TEXTS | VALUES}, optional={"arguments": ARGUMENTS | ARGUMENTS.map(json.dumps) | VALUES}
)
CALL = CALLED | st.fixed_dictionaries({"function": CALLED | VALUES}, optional={"id": SCALARS})
CALLS = st.lists(CALL, max_size=2) | st.lists(CALL, max_size=2).map(json.dumps) | VALUES
ROLES = st.one_of(
    st.sampled_from(["system", "user", "assistant", "human", "gpt", "tool", "function_call"]),
    st.sampled_from(["observation", "developer", "model", "User", ""]),
    VALUES,
)
SCHEMA = st.fixed_dictionaries(
    {"type": st.sampled_from(["json_schema", "text"])},
    optional={"json_schema": st.fixed_dictionaries({"schema": VALUES, "name": TEXTS}) | VALUES},
)
TOOLS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=2), max_size=2)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image_url"])}, optional={"text": TEXTS}
    ),
    max_size=2,
)
ODD_KEYS = st.sampled_from(
    [
        *(*sorted(METADATA)[:6], *sorted(REPEATED), *sorted(WEIGHTS), "images", "label", "name"),
        *("reasoning_content", "tool_calls", "history", "chosen", "\ud800"),
    ]
) | st.text(max_size=5)
EXTRA = st.dictionaries(ODD_KEYS, VALUES, max_size=1)


def turn(role: str, says: str) -> st.SearchStrategy[dict[str, Any]]:
    plain = st.fixed_dictionaries({role: ROLES, says: TEXTS})
    odd = st.fixed_dictionaries(
        {role: ROLES, says: TEXTS | PARTS | VALUES},
        optional={
            "tools": TOOLS | VALUES,
            "response_format": SCHEMA | VALUES,
            "tool_calls": CALLS,
            "function_call": CALL | VALUES,
            "reasoning_content": TEXTS | VALUES,
            "weight": SCALARS,
        },
    )
    return st.builds(lambda one, more: {**more, **one}, plain | odd, EXTRA)


def dialogue(role: str, says: str, names: tuple[str, str]) -> st.SearchStrategy[list[Any]]:
    """Turns in order, some of them swapped for anything."""

    def build(texts: list[str], system: Any, odd: list[Any], place: int) -> list[Any]:
        turns: list[Any] = [{role: names[n % 2], says: text} for n, text in enumerate(texts)]
        if system is not None:
            turns.insert(0, {role: "system", says: system})
        turns[place : place + len(odd)] = odd
        return turns

    odd = st.lists(turn(role, says) | VALUES, max_size=1)
    texts = st.lists(TEXTS, min_size=2, max_size=4)
    return st.builds(build, texts, st.none() | TEXTS | VALUES, odd, st.integers(0, 3))


OPENAI = dialogue("role", "content", ("user", "assistant"))
SHAREGPT = dialogue("from", "value", ("human", "gpt"))
MORE = {"system": TEXTS | VALUES, "tools": TOOLS | TOOLS.map(json.dumps) | VALUES}
MORE |= {"response_format": SCHEMA | VALUES, "system_prompt": TEXTS}
ALPACA = {"instruction": TEXTS | VALUES, "output": TEXTS | VALUES}
WORKING = {"role": st.just("assistant"), "content": TEXTS | st.none(), "tool_calls": CALLS}
WORKED = st.builds(
    lambda asked, call, told, answer: [
        {"role": "user", "content": asked},
        call,
        {"role": "tool", "content": told},
        {"role": "assistant", "content": answer},
    ],
    *(TEXTS, st.fixed_dictionaries(WORKING), TEXTS, TEXTS),
)
ANSWER = st.one_of(
    TEXTS, turn("role", "content"), turn("from", "value"), OPENAI, WORKED.map(lambda t: t[1:])
)
SHAPES = st.one_of(
    st.fixed_dictionaries({"messages": WORKED}, optional=MORE),
    st.fixed_dictionaries({"prompt": TEXTS | OPENAI, "chosen": ANSWER, "rejected": ANSWER}),
    st.fixed_dictionaries({"chosen": OPENAI, "rejected": OPENAI}, optional=MORE),
    st.fixed_dictionaries({"messages": OPENAI}, optional=MORE),
    st.fixed_dictionaries({"conversations": SHAREGPT}, optional=MORE),
    st.fixed_dictionaries(ALPACA, optional={"input": TEXTS | VALUES, **MORE}),
    st.fixed_dictionaries({"conversations": SHAREGPT, "chosen": ANSWER, "rejected": ANSWER}),
    st.fixed_dictionaries({"messages": OPENAI | WORKED, "label": SCALARS}),
    st.fixed_dictionaries({"prompt": TEXTS | VALUES, "completion": TEXTS, "label": SCALARS}),
)
ROWS = st.one_of(
    st.builds(lambda row, more: {**more, **row}, SHAPES, EXTRA), OPENAI, st.just({}), VALUES
)


@st.composite
def few_rows(draw: st.DrawFn, least: int = 1, most: int = 3) -> list[Any]:
    """Some rows; a function, so that no failure prints the whole grammar."""
    return [draw(ROWS) for _ in range(draw(st.integers(least, most)))]


def written(value: Any) -> str:
    """JSON of a row, with what json.dumps could not write."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)}: {written(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def read_everywhere(rows: list[Any], damage: int, tokenizer: Tokenizer) -> int:
    """Train on them, sample from them, prepare them; how many were trained."""
    lines = [written(row) for row in rows]
    if damage >= 0 and lines[0]:
        at = damage % len(lines[0])
        lines[0] = lines[0][:at] + lines[0][at + 1 :]
    trained = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("a.jsonl", "\n".join(lines)), ("a.json", f"[{','.join(lines)}]")):
            file = Path(folder) / name
            file.write_text(text, encoding="utf-8", errors="surrogatepass")
            spec = JsonlData(train=str(file), on_invalid="skip", valid_fraction=0)
            trained += skipped(spec, tokenizer, Path(folder))
            strict = JsonlData(train=str(file))
            told = problems_of(lambda spec=strict: spec.load(reserved=tokenizer.reserved))
            told += problems_of(lambda path=file: read_prompts(str(path), reserved=frozenset()))
            assert all(problem.startswith(f"{file}:") for problem in told)
    return trained


def problems_of(read: Callable[[], Any]) -> list[str]:
    try:
        read()
    except DataError as error:
        return error.problems
    return []


def skipped(spec: JsonlData, tokenizer: Tokenizer, folder: Path) -> int:
    cache = folder / "cache"
    try:
        data = spec.load(reserved=tokenizer.reserved, rejects=folder / "rejects.jsonl")
        found = encode(data.train, tokenizer, max_length=9999, on_invalid="skip", cache=cache)
    except DataError:
        return 0
    for index in range(len(found)):
        assert (found[index].labels >= 0).any()
        shown_branches(found[index], tokenizer)
    return len(found)


def prepared(row: Any) -> None:
    try:
        value = json.loads(written(row))
        record = record_of(value, origin="f:1")
    except (RowProblem, RecursionError):
        return
    assert not is_piece(record)
    json.dumps(record.body, ensure_ascii=False).encode()


@given(few_rows(), st.integers(-200, 200))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_row_is_read_or_refused_with_its_place(
    chat_tokenizer: Any, rows: list[Any], damage: int
) -> None:
    read_everywhere(rows, damage, chat_tokenizer("chatml"))
    for row in rows:
        prepared(row)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(few_rows(5, 8), st.integers(-200, 200))
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
def test_ten_thousand_rows_are_read_or_refused(
    chat_tokenizer: Any, rows: list[Any], damage: int
) -> None:
    read_everywhere(rows, damage, chat_tokenizer("qwen3"))
    for row in rows:
        prepared(row)


def test_the_grammar_makes_rows_that_are_trained(chat_tokenizer: Any) -> None:
    """Or the tests above would show nothing."""
    counts = []

    @given(few_rows())
    @settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def draw(rows: list[Any]) -> None:
        counts.append(read_everywhere(rows, -1, chat_tokenizer("chatml")))

    draw()
    assert 0 < sum(map(bool, counts)) < len(counts)
