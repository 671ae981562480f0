"""Files as rows: layout by content, every row's line, every kind of damage with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab.data.arrays import RawRow
from graftlab.data.files import locate, read_rows
from graftlab.errors import ConfigError

CHAT = [{"role": "user", "content": "Hi\u2028 é"}, {"role": "assistant", "content": "Hello"}]
ROWS: list[Any] = [{"messages": CHAT}, {"messages": CHAT[::-1]}, {"messages": []}]


def rows_of(tmp_path: Path, data: bytes | str) -> list[RawRow]:
    file = tmp_path / "named.wrongly"
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_rows(file))


def lines(rows: list[RawRow]) -> list[int]:
    return [row.line for row in rows]


def whole(rows: list[RawRow]) -> list[Any]:
    assert [row.problem for row in rows] == [None] * len(rows)
    return [row.value for row in rows]


def dumped(rows: list[Any]) -> list[str]:
    return [json.dumps(row, ensure_ascii=False) for row in rows]


@pytest.mark.parametrize("rows", [ROWS, [CHAT, CHAT[::-1], CHAT], ROWS[:1], [CHAT]])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_jsonl_with_any_line_ends(tmp_path: Path, rows: list[Any], end: str) -> None:
    text = (end or "\n").join(dumped(rows)) + end
    found = rows_of(tmp_path, text)
    assert whole(found) == rows
    assert lines(found) == list(range(1, len(rows) + 1))


def test_blank_lines_and_marks_are_passed_over(tmp_path: Path) -> None:
    text = "\n \n" + "\n\n".join(dumped(ROWS)) + "\n\n"
    found = rows_of(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert whole(found) == ROWS
    assert lines(found) == [3, 5, 7]


@pytest.mark.parametrize("rows", [ROWS, [CHAT, CHAT], ROWS[:1], [CHAT]])
@pytest.mark.parametrize("indent", [None, 0, 2])
def test_arrays_with_the_line_of_each_row(
    tmp_path: Path, rows: list[Any], indent: int | None
) -> None:
    text = json.dumps(rows, ensure_ascii=False, indent=indent)
    found = rows_of(tmp_path, text)
    assert whole(found) == rows
    physical = text.split("\n")
    if indent == 2:
        assert lines(found) == [i for i, line in enumerate(physical, 1) if line in ("  {", "  [")]
    if indent is None:
        assert lines(found) == [1] * len(rows)


def test_arrays_with_one_row_per_line(tmp_path: Path) -> None:
    for rows in (ROWS, ROWS[:1], [CHAT]):
        found = rows_of(tmp_path, "[\n" + ",\n".join(dumped(rows)) + "\n]\n")
        assert whole(found) == rows
        assert lines(found) == list(range(2, len(rows) + 2))


def test_one_pretty_printed_conversation_is_one_row(tmp_path: Path) -> None:
    for row in (CHAT, ROWS[0]):
        assert whole(rows_of(tmp_path, json.dumps(row, indent=2))) == [row]


def test_damage_is_told_with_its_line(tmp_path: Path) -> None:
    good = dumped(ROWS[:1])[0]
    found = rows_of(
        tmp_path, b"\n".join([good.encode(), b'{"a": \xe9}', b'{"a": 1,,}', good.encode()])
    )
    assert lines(found) == [1, 2, 3, 4]
    assert [row.problem is None for row in found] == [True, False, False, True]
    assert "not UTF-8 (byte 0xE9 at column 7)" in str(found[1].problem)
    assert "broken JSON at column 9" in str(found[2].problem)
    assert found[2].value == '{"a": 1,,}'


def test_a_lone_broken_first_row_does_not_make_an_array(tmp_path: Path) -> None:
    rows = dumped([CHAT, CHAT, CHAT])
    found = rows_of(tmp_path, "\n".join([rows[0][:-3], *rows[1:]]))
    assert lines(found) == [1, 2, 3]
    assert [row.problem is None for row in found] == [False, True, True]


@pytest.mark.parametrize(
    "text", ['[\n{"a": 1},\n{"a": 2}\n{"a": 3}\n]', '[\n{"a": 1},\n{"a": 2},\n']
)
def test_a_broken_array_keeps_what_came_before(tmp_path: Path, text: str) -> None:
    found = rows_of(tmp_path, text)
    assert [row.value for row in found[:2]] == [{"a": 1}, {"a": 2}]
    assert "the rest is unread" in str(found[2].problem)
    assert found[2].line == 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no rows"),
        (b" \n\n", "holds no rows"),
        (b"[\n]", "holds no rows"),
        ("[]".encode("utf-16"), "UTF-16"),
        ('{"a": 1}\n'.encode("utf-16-le"), "UTF-16"),
        ('{"a": 1}\n'.encode("utf-16-be"), "UTF-16"),
        (b"\0" * 99, "a NUL byte; the file was damaged, or is not text"),
        (b'[\n"a\0b"]', "a NUL byte; the file was damaged, or is not text"),
        (b'[\n{"a": "\xe9"}\n]', "not UTF-8"),
        (b"[" * 100_000, "nested more than 100 levels deep"),
    ],
)
def test_hopeless_files_are_one_problem(tmp_path: Path, data: bytes, reason: str) -> None:
    (found,) = rows_of(tmp_path, data)
    assert reason in str(found.problem)


def test_locate_takes_files_lists_and_globs(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for file in files:
        file.touch()
    glob = str(tmp_path / "*.jsonl")
    assert locate("data.train", glob) == files
    assert locate("data.train", str(files[1])) == [files[1]]
    assert locate("data.train", [str(files[2]), glob]) == [files[2], *files[:2]]


def test_locate_takes_no_device() -> None:
    with pytest.raises(ConfigError, match=r"^prompts=/dev/zero is a device or a pipe"):
        locate("prompts", "/dev/zero")


def test_locate_names_the_key_and_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").touch()
    for pattern, hint in [
        ("chat.jsonl", "Did you mean `chats.jsonl`?"),
        ("zzz.csv", "there is chats.jsonl"),
        ("no/such/folder.jsonl", "there is chats.jsonl"),
        ("*.csv", "matches no file"),
        ("", "is a folder"),
    ]:
        with pytest.raises(ConfigError) as caught:
            locate("data.valid", f"{tmp_path}/{pattern}")
        assert str(caught.value).startswith("data.valid=")
        assert hint in str(caught.value)
    with pytest.raises(ConfigError, match="must be a file"):
        locate("data.train", 7)
