"""Files of every format as records, and damage of every kind told with file, line and fix."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from graftlab.data import arrays
from graftlab.errors import ConfigError, DataError
from graftlab.recipes.record import Record
from graftlab.recipes.sources import SourceSpec, find_files, read_source
from recipe_rows import Drops, turns, write_lines

ROWS = [{"messages": turns(f"Question {n}", f"Answer {n}")} for n in range(4)]


def read(path: Any, drops: Drops | None = None, **rest: Any) -> list[Record]:
    spec = SourceSpec(files=str(path), **rest)
    spec.check("core")
    return list(read_source("core", spec, Drops() if drops is None else drops))


def bodies(records: list[Record]) -> list[Any]:
    return [record.body for record in records]


def test_lines_arrays_and_gzip_are_the_same(tmp_path: Path) -> None:
    plain = Path(write_lines(tmp_path / "a.jsonl", ROWS))
    array = tmp_path / "b.json"
    array.write_text(json.dumps(ROWS, indent=2))
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, array, packed):
        assert bodies(read(path)) == ROWS
    assert [r.origin for r in read(plain)] == [f"{plain}:{n}" for n in (1, 2, 3, 4)]
    assert {r.source for r in read(plain)} == {"core"}


def test_rows_on_one_line_have_origins_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(ROWS))
    assert [r.origin for r in read(file)] == [f"{file}:1{n}" for n in ("", "#2", "#3", "#4")]


def test_csv_with_a_column_map(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('\ufeffid,question,reply\n1,Hi,"Hello,\nyou"\n2,Who?,Me\n3,only\n', "utf-8")
    drops = Drops()
    found = read(file, drops, columns={"user": "question", "assistant": "reply"})
    assert [r.origin for r in found] == [f"{file}:2", f"{file}:4"]
    assert found[0].body["messages"][1]["content"] == "Hello,\nyou"
    assert [(r.origin, detail) for r, _, detail in drops] == [
        (f"{file}:5", "2 cells under a header of 3")
    ]
    with pytest.raises(DataError, match=r":1: no column `answer`; there is id, question, reply"):
        read(file, columns={"user": "question", "assistant": "answer"})
    tabs = tmp_path / "b.tsv"
    tabs.write_text("instruction\toutput\nHi\tHello, you\n")
    assert read(tabs)[0].body["messages"][1]["content"] == "Hello, you"
    latin = tmp_path / "c.csv"
    latin.write_bytes("instruction,output\nHi,café\nHi,cafe\n".encode("latin-1"))
    assert len(read(latin, drops)) == 1
    assert "not UTF-8" in drops[-1][2]


def test_a_folder_of_texts_is_one_record_each(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfSecond.\r\nLine two.\r\n")
    (tmp_path / "a.txt").write_text("First.")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"Third."))
    (tmp_path / "notes.md").write_text("Not taken.")
    found = read(tmp_path)
    assert [r.body["text"] for r in found] == ["First.", "Second.\nLine two.\n", "Third."]
    assert found[0].origin == f"{tmp_path / 'a.txt'}:1"
    assert {r.kind for r in found} == {"text"}
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"without .txt files.*none/\*.jsonl"):
        find_files("sources.core.files", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", gzip.compress(json.dumps(ROWS[0]).encode() * 999)[:-20], "damaged or cut"),
        ("a.txt", gzip.compress(b"Prose. " * 9999)[:-20], "damaged or cut short"),
        ("a.csv", gzip.compress(b"text\n" + b"Prose\n" * 9999)[:-20], "damaged or cut short"),
        ("a.jsonl", json.dumps(ROWS[0]).encode("utf-16"), "UTF-16"),
        ("a.txt", "Prose.".encode("utf-16"), "UTF-16"),
        ("a.csv", "text\nProse.".encode("utf-16"), "UTF-16"),
        ("a.json", json.dumps(ROWS, indent=1).encode()[:-90], "the rest is unread"),
    ],
)
def test_files_cut_short_are_errors(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    """Nobody could say how many rows are missing."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match="cannot be read to its end") as caught:
        read(tmp_path / name)
    assert message in caught.value.problems[0]
    assert caught.value.problems[0].startswith(f"{tmp_path / name}:")


def test_bad_rows_are_counted_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LONGEST_ROW", 5000)
    good = json.dumps(ROWS[0]).encode()
    bad = {
        b'{"text": "caf\xe9"}': "not UTF-8 (byte 0xE9",
        b'{"text": "a\0b"}': "broken JSON",
        b'{"text": "a\\u0000b"}': "NUL characters",
        b'{"text": "' + b"x" * 20_000 + b'"}': "a row of over",
        b'{"text": {"nested": true}}': "text must be text, this is an object",
        b'{"messages": [': "broken JSON",
        b'{"question": "a"}': "unknown shape with keys question",
    }
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join([good, *(row + b"\n" + good for row in bad)]))
    drops = Drops()
    assert len(read(file, drops)) == len(bad) + 1
    for number, ((record, reason, detail), seen) in enumerate(
        zip(drops, bad.values(), strict=True), 1
    ):
        assert record.origin == f"{file}:{2 * number}"
        assert reason in ("cannot be parsed", "cannot be used")
        assert seen in detail


def test_a_source_of_bad_rows_only_is_an_error(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"question": "a"}] * 30)
    with pytest.raises(DataError, match=r"sources\.core: none of its 30 rows") as caught:
        read(file)
    assert caught.value.problems[0].startswith(f"{file}:1: unknown shape")
    assert len(caught.value.problems) == 20


def test_a_source_checks_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sources\.core\.files is not set.*corpus=FILE"):
        SourceSpec().check("core")
    with pytest.raises(ConfigError, match="files or make, not both"):
        SourceSpec(files="a", make="guard").check("core")
    with pytest.raises(ConfigError, match=r"sources\.core\.files=.*does not exist"):
        SourceSpec(files=str(tmp_path / "none.jsonl")).check("core")
    with pytest.raises(ConfigError, match="Did you mean `json`"):
        SourceSpec(files="a", format="jsn")
    SourceSpec(make="guard").check("guard")


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(ConfigError, match=r"pip install 'graftlab\[parquet\]'"):
        read(tmp_path / "a.parquet")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
def test_parquet_fills_no_arguments_with_null(tmp_path: Path) -> None:
    """Its columns hold the keys of all rows, null where a row has none."""
    import pyarrow as pa
    from pyarrow import parquet

    given = [{"zone": "north"}, {"depth": 3}]
    rows = []
    for arguments in given:
        call = {"function": {"name": "look", "arguments": arguments}}
        ask, answer = turns("Hi", "")
        rows.append({"messages": [ask, {**answer, "tool_calls": [call]}]})
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    filled = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert filled[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]["depth"] is None
    found = bodies(read(tmp_path / "a.parquet"))
    calls = [body["messages"][1]["tool_calls"][0] for body in found]
    assert [call["function"]["arguments"] for call in calls] == given


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert bodies(found) == ROWS
    assert found[2].origin == f"{tmp_path / 'a.parquet'}:3"
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cannot be read to its end"):
        read(tmp_path / "b.parquet")
