"""Blob storage: byte for byte that of coremltools, and damage named by the rule it breaks."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from graftlab.apple.exports import blob


def arrays() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    sizes = [(3, 5), (32,), (7, 64), (1, 1)]
    return [draw.standard_normal(size).astype(np.float16) for size in sizes]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with (tmp_path / "weights.bin").open("wb") as stream:
        blob.write(stream, arrays())
    return tmp_path / "weights.bin"


def test_values_come_back_and_records_stand_at_multiples_of_64(file):
    records = blob.read(file)
    assert [record.place % 64 for record in records] == [0, 0, 0, 0]
    for record, array in zip(records, arrays(), strict=True):
        assert np.array_equal(blob.load(file, record), array.ravel())
    assert file.stat().st_size == records[-1].offset + 2, "nothing follows the last value"


def test_writing_returns_what_reading_finds(file):
    stream = io.BytesIO()
    assert blob.write(stream, arrays()) == blob.read(file)
    assert stream.getvalue() == file.read_bytes()


def test_no_record_is_a_file_too(tmp_path):
    with (tmp_path / "empty.bin").open("wb") as stream:
        blob.write(stream, [])
    assert blob.read(tmp_path / "empty.bin") == []
    assert (tmp_path / "empty.bin").stat().st_size == 64


@pytest.mark.slow
def test_the_bytes_are_those_of_coremltools(file, tmp_path):
    storage = pytest.importorskip("coremltools.libmilstoragepython")
    writer = storage._BlobStorageWriter(str(tmp_path / "theirs.bin"))
    places = [writer.write_fp16_data(array.ravel().view(np.uint16)) for array in arrays()]
    del writer
    assert (tmp_path / "theirs.bin").read_bytes() == file.read_bytes()
    assert places == [record.place for record in blob.read(file)]
    reader = storage._BlobStorageReader(str(file))
    for place, array in zip(places, arrays(), strict=True):
        assert np.array_equal(
            np.array(reader.read_fp16_data(place)).view(np.float16), array.ravel()
        )


def put(content: bytes, place: int, pattern: str, value: int) -> bytes:
    return (
        content[:place] + struct.pack(pattern, value) + content[place + struct.calcsize(pattern) :]
    )


DAMAGE = {
    "version": lambda c: put(c, 4, "<I", 1),
    "header": lambda c: put(c, 32, "<I", 9),
    "record": lambda c: put(c, 64, "<I", 0),
    "dtype": lambda c: put(c, 68, "<I", 99),
    "offset": lambda c: put(c, 80, "<Q", 192),
    "size": lambda c: put(c, 88, "<Q", 5),
    "padding": lambda c: put(c, 64 + 64 + 30 + 1, "<B", 1),
    "truncated": lambda c: c[:-1],
    "count": lambda c: c + b"\0",
}


@pytest.mark.parametrize("rule", DAMAGE)
def test_damage_is_named_by_the_rule_it_breaks(rule, file):
    file.write_bytes(DAMAGE[rule](file.read_bytes()))
    with pytest.raises(blob.BlobError) as caught:
        blob.read(file)
    assert caught.value.rule == rule


@pytest.mark.parametrize("size", [0, 10, 63, 100, 150, 500])
def test_a_file_cut_anywhere_is_refused(size, file):
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(blob.BlobError) as caught:
        blob.read(file)
    assert caught.value.rule == ("header" if size < 64 else "truncated")
