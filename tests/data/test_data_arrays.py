"""JSON arrays as a stream: the same rows whatever the pieces, bounded memory, no row lost."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.data import arrays
from graftlab.data.arrays import RawRow, array_rows
from graftlab.data.files import read_rows

SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
)
KEY = st.text('ab\n"\\é€', max_size=4)
ROW = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3),
    max_leaves=5,
)


def rows_of(data: bytes) -> list[RawRow]:
    return list(array_rows(io.BytesIO(data)))


def same(one: Any, other: Any) -> bool:
    """Equality that holds for NaN too."""
    return json.dumps(one) == json.dumps(other)


@settings(deadline=None)
@given(
    st.lists(ROW, min_size=1, max_size=6),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.integers(1, 40),
)
def test_any_array_in_pieces_of_any_size(
    rows: list[Any], indent: int | None, ascii: bool, piece: int
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_PIECE", piece)
        found = rows_of(text.encode())
    assert [row.problem for row in found] == [None] * len(rows)
    assert same([row.value for row in found], rows)
    decoder, at = json.JSONDecoder(), 1
    for row in found:
        at += len(text[at:]) - len(text[at:].lstrip())
        assert row.line == text.count("\n", 0, at) + 1
        at = decoder.raw_decode(text, at)[1]
        at = text.index(",", at) + 1 if "," in text[at:] else at


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=5), st.data(), st.integers(1, 40))
def test_a_cut_array_keeps_what_came_before(rows: list[Any], data: Any, piece: int) -> None:
    text = json.dumps([{"row": row} for row in rows], indent=1).encode()
    cut = data.draw(st.integers(1, len(text) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_PIECE", piece)
        *before, last = rows_of(text[:cut])
    assert last.ends
    assert "the rest is unread" in str(last.problem)
    assert same([row.value for row in before], [{"row": row} for row in rows][: len(before)])
    assert len(before) <= len(rows)
    assert last.line == text[:cut].count(b"\n") + 1 or "Unterminated" in str(last.problem)


def test_memory_holds_one_row_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve megabytes of rows in a small part of that, on one line or on many."""
    monkeypatch.setattr(arrays, "LONGEST_ROW", 2**20)
    for indent in (None, 1):
        file = tmp_path / f"{indent}.json"
        rows = [
            {"messages": [{"role": "user", "content": f"{n}" + "é" * 2000}]} for n in range(3000)
        ]
        file.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
        del rows
        assert file.stat().st_size > 12e6
        tracemalloc.start()
        count = sum(row.problem is None for row in read_rows(file))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 3000
        assert peak < 6e6


def test_an_element_of_another_encoding_is_one_problem(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'[\n{"a": 1},\n{"b":\n "caf\xe9", "c": "\xc3\xa9"},\n{"a": 3}\n]')
    first, bad, last = read_rows(file)
    assert (first.value, last.value) == ({"a": 1}, {"a": 3})
    assert (bad.line, last.line) == (3, 5)
    assert "not UTF-8 (byte 0xE9 on line 4): convert the file" in str(bad.problem)
    assert not bad.ends
    assert bad.value == '{"b":\n "caf�", "c": "é"}'


def test_a_lone_surrogate_written_as_an_escape_is_no_encoding_problem() -> None:
    (row,) = rows_of(b'["\\udce9 \xc3\xa9"]')
    assert (row.value, row.problem) == ("\udce9 é", None)


def test_text_behind_the_array_is_told(tmp_path: Path) -> None:
    """Two arrays in one file, as `cat a.json b.json` makes them."""
    file = tmp_path / "a.json"
    file.write_text('[\n{"a": 1}\n]\n[\n{"a": 2}\n]\n')
    first, problem = read_rows(file)
    assert first.value == {"a": 1}
    assert (problem.line, problem.ends) == (4, True)
    assert "something follows the end of the array" in str(problem.problem)


def test_a_damaged_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    rows = [{"a": f"{n * 2654435761 % 2**32:x}"} for n in range(60_000)]
    data = gzip.compress(json.dumps(rows, indent=1).encode())
    file = tmp_path / "a.json.gz"
    file.write_bytes(data[: len(data) // 2])
    *before, last = read_rows(file)
    assert [row.value for row in before] == rows[: len(before)]
    assert 10_000 < len(before) < 60_000
    assert "the gzip file is damaged or cut short" in str(last.problem)
    assert last.ends
    assert last.line > before[-1].line


@pytest.mark.parametrize("text", ['[\n{"a": 1},\n"%s",\n{"a": 2}\n]', '[[{"role": "%s"}], 1]'])
def test_a_row_that_is_too_long_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LONGEST_ROW", 2**20)
    *before, last = rows_of((text % ("x" * 2**22)).encode())
    assert [row.value for row in before] == [{"a": 1}][: text.count("\n")]
    assert "a row of over 1 MB is not read" in str(last.problem)
    assert "the rest is unread" in str(last.problem)
    assert last.ends
    assert len(last.value) == 200


def test_a_row_a_little_too_long_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LONGEST_ROW", 2**20)
    first, long, last = rows_of(b'[{"a": 1},\n"' + b"x" * (2**20 + 9) + b'",\n{"a": 2}]')
    assert (first.value, last.value) == ({"a": 1}, {"a": 2})
    assert "a row of over 1 MB is not read" in str(long.problem)
    assert (long.line, long.ends, len(long.value)) == (2, False, 200)


def test_a_conversation_that_is_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LONGEST_ROW", 2**16)
    turn = {"role": "user", "content": "x" * 100}
    (found,) = rows_of(json.dumps([turn] * 3000).encode())
    assert "an array of nothing but messages is one conversation" in str(found.problem)
    assert found.ends
    short = rows_of(json.dumps([turn] * 300).encode())
    assert [row.value for row in short] == [[turn] * 300]
    mixed = rows_of(json.dumps([turn, turn, {"a": 1}, turn]).encode())
    assert [row.value for row in mixed] == [turn, turn, {"a": 1}, turn]


def test_an_object_that_is_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "LONGEST_ROW", 2**16)
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"data": [{"a": "x" * 99}] * 1000}, indent=1))
    (found,) = read_rows(file)
    assert "is not read" in str(found.problem)
    assert len(found.value) == 200
