"""Files that are no JSON, and JSON that is none, are named as what they are."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from graftlab.data.arrays import RawRow
from graftlab.data.files import read_rows
from graftlab.data.jsonl import JsonlData
from graftlab.errors import DataError

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
ROW = json.dumps({"messages": TURNS})
DEEP = "[" * 100_000 + "]" * 100_000


def rows_of(path: Path, data: bytes | str) -> list[RawRow]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_rows(path))


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "text")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"PAR1\x15\x04\x15", ("Parquet", "data=prepared data.recipe=chats")),
        (b"ARROW1\0\0\xff\xff", ("Arrow", "to_json")),
        (b"\xff\xff\xff\xff\x10\1", ("an Arrow stream", "to_json")),
        (b"FEA1\0", ("Feather", "to_parquet")),
        (zipped("[Content_Types].xml"), ("XLSX", "CSV")),
        (zipped("chats.jsonl"), ("a ZIP archive", "unpack")),
        (b"BZh91AY", ("bzip2", "unpack")),
        (b"\xfd7zXZ\0", ("xz", "unpack")),
        (b"\x28\xb5\x2f\xfd$", ("zstd", "unpack")),
        (b"SQLite format 3\0", ("SQLite", "Parquet")),
        (b"version https://git-lfs.github.com/spec/v1\n", ("Git LFS pointer", "git lfs pull")),
        (b"\n<!DOCTYPE html>\n<html>", ("an HTML page", "downloaded")),
        ("instruction,input,output\na,,b\n", ("CSV", "data=prepared")),
        ('"instruction","output"\n"a","b"\n', ("CSV", "data=prepared")),
        ("instruction\toutput\na\tb\n", ("TSV", "data=prepared")),
        ("Frage;output\na;b\n", ("CSV with semicolons", "data=prepared")),
        (f"{ROW}\r{ROW}\r", ("carriage returns alone", "tr ")),
        (f"{ROW}\r{ROW}", ("carriage returns alone", "tr ")),
    ],
)
def test_other_kinds_of_files_are_one_problem(
    tmp_path: Path, data: bytes | str, named: tuple[str, str]
) -> None:
    raw = data if isinstance(data, bytes) else data.encode()
    for content in (raw, gzip.compress(raw)):
        (found,) = rows_of(tmp_path / "a.jsonl", content)
        assert found.ends
        for part in named:
            assert part in str(found.problem)
        with pytest.raises(DataError, match="cannot be read"):
            JsonlData(train=str(tmp_path / "a.jsonl"), on_invalid="skip").load()


def test_a_file_called_csv_is_one_whatever_its_columns(tmp_path: Path) -> None:
    (found,) = rows_of(tmp_path / "a.csv", "frage,antwort\na,b\n")
    assert "the file is CSV" in str(found.problem)
    whole = rows_of(tmp_path / "rows.csv", f"{ROW}\n{ROW}\n")
    assert [row.problem for row in whole] == [None, None]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{ROW},", "a comma behind the row"),
        (ROW.replace("}]}", "},]}"), "a comma in front of a closing bracket"),
        (ROW[:-1] + ",}", "a comma in front of a closing bracket"),
        (f"{ROW} {ROW}", "a second row on the same line"),
        (str({"messages": TURNS}), "single quotes: a Python literal"),
        ('{"messages": [], "id": None}', "JSON has true, false and null"),
        ('{"messages": [], "ok": True}', "JSON has true, false and null"),
        ('{"messages": [], "score": NaN}', "NaN is not JSON"),
        ('{"messages": [], "score": -Infinity}', "-Infinity is not JSON"),
        ('{"messages": [], "messages": []}', "the key `messages` stands twice"),
        ('{"messages": [{"role": "user", "role": "user"}]}', "the key `role` stands twice"),
        ('{"id": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"tools": ' + DEEP + "}", "nested more than 100 levels deep"),
        ('{"tools": ' + "[" * 150 + "]" * 150 + "}", "nested more than 100 levels deep"),
        ('{"a":' * 150 + "1" + "}" * 150, "nested more than 100 levels deep"),
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_rows_that_are_no_json_are_told_what_they_are(
    tmp_path: Path, text: str, reason: str, array: bool
) -> None:
    """Those that can be read past are one problem among whole rows, in lines and in arrays."""
    if not array:
        found = rows_of(tmp_path / "a.jsonl", f"{ROW}\n{text}\n{ROW}\n")
        assert [row.line for row in found] == [1, 2, 3]
        assert [row.problem is None for row in found] == [True, False, True]
    elif "stands" in reason or "Infinity" in reason or "NaN" in reason or "levels" in reason:
        found = rows_of(tmp_path / "a.json", f"[\n{ROW},\n{text},\n{ROW}\n]")
        assert [(row.line, row.index) for row in found] == [(2, 1), (3, 2), (4, 3)]
        assert [row.problem is None for row in found] == [True, False, True]
    else:
        return
    assert reason in str(found[1].problem)


def test_a_row_of_an_array_is_named_by_its_line_and_its_index(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    rows: list[Any] = [{"messages": TURNS}] * 4
    file.write_text(json.dumps([*rows, {"messages": 3}, *rows], indent=2))
    line = file.read_text().split("\n").index('    "messages": 3') + 0
    with pytest.raises(DataError) as caught:
        JsonlData(train=str(file)).load()
    assert caught.value.problems[0].startswith(f"{file}:{line} (row 5): the turns must be")
    rejects = tmp_path / "rejects.jsonl"
    JsonlData(train=str(file), on_invalid="skip").load(rejects=rejects)
    entry = json.loads(rejects.read_text())
    assert (entry["line"], entry["index"]) == (line, 5)


def test_rejects_of_any_content_can_be_written(tmp_path: Path) -> None:
    file, rejects = tmp_path / "a.jsonl", tmp_path / "rejects.jsonl"
    bad = ['{"messages": ' + DEEP + "}", '{"messages": "\\ud83d"}', '{"\\ud83d": 1}']
    file.write_text("\n".join([*bad, ROW]))
    found = JsonlData(train=str(file), on_invalid="skip").load(rejects=rejects)
    assert (found.rejected, len(found.train)) == (3, 1)
    assert len(rejects.read_text().splitlines()) == 3
