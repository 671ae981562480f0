"""Pages of a mapped file are given back, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftlab.models.pages import MappedFile

MIB = 2**20
STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes of files that this process holds in memory."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines["RssFile"].split()[0]) * 1024


@pytest.fixture
def file(tmp_path) -> Path:
    values = torch.arange(4 * MIB, dtype=torch.float32)
    torch.save({"large": values, "small": values[:10].clone()}, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_pages_that_were_read_are_given_back(file):
    if not STATUS.exists():
        pytest.skip("no /proc on this system")
    state = torch.load(file, mmap=True, weights_only=True)
    large = state["large"]
    before = resident()
    copy = large.to(torch.float64)
    assert resident() - before > 12 * MIB
    MappedFile(file).forget(large)
    assert resident() - before < 4 * MIB
    assert torch.equal(large.double(), copy)  # read again from the file
    assert torch.equal(state["small"], torch.arange(10.0))


def test_memory_that_is_not_the_file_s_is_left_alone(file):
    state = torch.load(file, mmap=True, weights_only=True)
    own = state["large"].clone()
    MappedFile(file).forget(own)
    MappedFile(file.with_name("absent.pt")).forget(state["large"])
    assert torch.equal(own, torch.arange(4 * MIB, dtype=torch.float32))
    assert torch.equal(own, state["large"])


def test_a_large_tensor_is_copied_piece_by_piece(file, monkeypatch):
    state = torch.load(file, mmap=True, weights_only=True)
    large, mapped = state["large"].view(1024, -1), MappedFile(file)
    forgotten: list[int] = []
    monkeypatch.setattr("graftlab.models.pages.PIECE", MIB)
    monkeypatch.setattr(mapped, "forget", lambda piece: forgotten.append(piece.nbytes))
    copy = mapped.copy(large, torch.device("cpu"), torch.bfloat16)
    assert torch.equal(copy, large.bfloat16())
    assert len(forgotten) == 16
    assert sum(forgotten) == large.nbytes
    assert mapped.copy(large, torch.device("cpu"), torch.float32) is large
