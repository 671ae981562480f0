"""A flipped byte is noticed in whatever file it is, and the file is named."""

from __future__ import annotations

import os

import pytest

from graftlab.files.checksums import (
    DamagedError,
    beside,
    check_file,
    check_folder,
    checked_file,
    is_whole,
    publish_checked,
    write_checksum,
    write_checksums,
)


def flip(file, place=0):
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_one_file(tmp_path):
    file = tmp_path / "step.ckpt"
    file.write_bytes(bytes(range(256)) * 20_000)
    assert not check_file(file)
    write_checksum(file)
    assert check_file(file)
    flip(file, 5_000_000)
    with pytest.raises(DamagedError, match="step.ckpt"):
        check_file(file)
    flip(file, 5_000_000)
    flip(beside(file))
    with pytest.raises(DamagedError, match="step.ckpt"):
        check_file(file)


def test_a_checksum_is_there_before_its_file(tmp_path, monkeypatch):
    file, seen = tmp_path / "adapter.pt", []
    module = "graftlab.files.writing.os.replace"
    rename = os.replace

    def watched(source, target):
        seen.append(target)
        rename(source, target)

    monkeypatch.setattr(module, watched)
    with checked_file(file) as draft:
        draft.write_bytes(b"weights")
    assert seen == [beside(file), file]
    assert check_file(file)
    other = tmp_path / "grown"
    other.write_bytes(b"lines")
    publish_checked(other, tmp_path / "lines")
    assert check_file(tmp_path / "lines")
    assert not other.exists()


def test_whole_is_what_is_there_and_as_it_was_written(tmp_path):
    file, told = tmp_path / "answers.jsonl", []
    assert not is_whole(file, tell=told.append)
    file.write_bytes(b"lines")
    assert is_whole(file, tell=told.append), "somebody else's, without a checksum"
    write_checksum(file)
    assert is_whole(file, tell=told.append)
    assert told == []
    flip(file)
    assert not is_whole(file, tell=told.append)
    assert len(told) == 1
    assert "answers.jsonl is not as it was written" in told[0]


def test_a_folder_names_every_damaged_and_missing_file(tmp_path):
    for name in ("a", "b", "deep/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert not check_folder(tmp_path)
    write_checksums(tmp_path)
    assert check_folder(tmp_path)
    flip(tmp_path / "a")
    (tmp_path / "deep" / "c").unlink()
    with pytest.raises(DamagedError, match=r"/a, .*deep/c"):
        check_folder(tmp_path)
    assert check_folder(tmp_path, ["b"])


@pytest.mark.parametrize("content", ['{"../out": "0"}', '{"/etc/passwd": "0"}', "[1]", "{"])
def test_checksums_of_others_lead_nowhere(tmp_path, content):
    (tmp_path / "checksums.json").write_text(content)
    with pytest.raises(DamagedError, match="checksums"):
        check_folder(tmp_path)
