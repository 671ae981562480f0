"""Files that are no JSON, told by how they begin: what they are, and the way on."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = 512
"""Bytes that tell most kinds."""

_PREPARE = (
    "`graftlab prepare` reads it: data=prepared data.recipe=chats data.corpus=FILE (or graftlab "
    "prepare corpus=FILE out=DIR)"
)
_UNPACK = "unpack it first (only gzip is unpacked on the way)"
_EXPORT = "save it as JSON Lines or Parquet first"

_BINARY = (
    (b"PAR1", f"Parquet: {_PREPARE}"),
    (b"ARROW1", f"Arrow (Feather): {_EXPORT}, as with datasets.Dataset.from_file(FILE).to_json()"),
    (b"FEA1", f"Feather: {_EXPORT}, as with pandas.read_feather(FILE).to_parquet()"),
    (b"\xff\xff\xff\xff", f"an Arrow stream: {_EXPORT}, as with Dataset.from_file(FILE).to_json()"),
    (b"\xd0\xcf\x11\xe0", f"an old Office file, such as XLS: {_EXPORT}, or as CSV"),
    (b"BZh", f"packed with bzip2: {_UNPACK}"),
    (b"\xfd7zXZ", f"packed with xz: {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"packed with zstd: {_UNPACK}"),
    (b"7z\xbc\xaf", f"a 7z archive: {_UNPACK}"),
    (b"SQLite format 3", f"an SQLite database: {_EXPORT}"),
    (b"\x89HDF", f"HDF5: {_EXPORT}"),
    (b"\x93NUMPY", "a NumPy array: rows are conversations in JSON"),
    (b"%PDF", "PDF: save its text first"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the data: fetch the file itself (git lfs pull)",
    ),
)
_NAMES = frozenset(
    {
        *("instruction", "input", "output", "system", "system_prompt", "prompt", "completion"),
        *("question", "answer", "query", "response", "user", "assistant", "text", "messages"),
        "conversations",
        *("role", "content", "chosen", "rejected", "label", "id"),
    }
)
_DIVIDED = re.compile(rb"[}\]]\r+[{\[]")
_CARRIAGE_RETURNS = (
    "the lines end with carriage returns alone (as on old Macs): convert the file, as with "
    "tr '\\r' '\\n'"
)
_CELL = re.compile(r'"?\s*([^",;\t]*?)\s*"?')
_TAR = b"ustar"


def binary_problem(head: bytes) -> str | None:
    """What to say of a file that begins with these HEAD bytes; None for what may be JSON."""
    found = next((what for mark, what in _BINARY if head.startswith(mark)), None)
    if head.startswith(b"PK\x03\x04"):
        sheet = b"[Content_Types].xml" in head or b"xl/" in head
        found = f"XLSX: {_EXPORT}, or as CSV" if sheet else f"a ZIP archive: {_UNPACK}"
    elif head[257:262] == _TAR:
        found = f"a tar archive: {_UNPACK}"
    elif head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        found = "an HTML page, not data: was a page downloaded in place of the file?"
    return f"the file is {found}" if found else None


def text_problem(path: Path, first: bytes, second: bytes | None) -> str | None:
    """What to say of a file by its first two lines that are not blank; None for what may be JSON.

    Such as a header of CSV, or one line that carriage returns divide into rows.
    """
    if first[:1] in (b"{", b"["):
        return _CARRIAGE_RETURNS if second is None and _DIVIDED.search(first) else None
    header = first.decode("utf-8", "replace")
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    for mark, name in ((",", "CSV"), ("\t", "TSV"), (";", "CSV with semicolons")):
        cells = [_cell(cell) for cell in header.split(mark)]
        if len(cells) > 1 and (_NAMES & set(cells) or ending in (".csv", ".tsv")):
            return f"the file is {name}: {_PREPARE}"
    return None


def _cell(text: str) -> str:
    found = _CELL.fullmatch(text)
    return found[1].lower() if found else ""
