"""A container's limits, as its control groups say them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graftlab import limits
from graftlab.sweeps.slots import find_slots

GIB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 cores and 64 GiB; this process is in the group `pod/box`."""
    box = tmp_path / "groups" / "pod" / "box"
    box.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("3:freezer:/elsewhere\n0::/pod/box\n")
    monkeypatch.setattr(limits, "ROOT", tmp_path / "groups")
    monkeypatch.setattr(limits, "OWN", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    return tmp_path / "groups"


def found() -> tuple[int, float]:
    return limits.cores(), limits.memory_bytes() / GIB


def test_the_narrowest_group_counts(groups: Path) -> None:
    assert found() == (16, 64)
    box = groups / "pod" / "box"
    (box / "cpu.max").write_text("max 100000\n")
    (box / "memory.max").write_text("max\n")
    assert found() == (16, 64)
    (groups / "pod" / "cpu.max").write_text("250000 100000\n")
    (groups / "pod" / "memory.max").write_text(f"{12 * GIB}\n")
    assert found() == (2, 12)
    (box / "cpu.max").write_text("400000 100000\n")
    (box / "memory.max").write_text(f"{6 * GIB}\n")
    assert found() == (2, 6)
    (box / "cpu.max").write_text("20000 100000\n")
    assert found() == (1, 6)
    (box / "memory.max").write_text(f"{600 * GIB}\n")
    assert found() == (1, 12)


def test_a_container_that_sees_only_its_own_group(groups: Path, tmp_path: Path) -> None:
    (groups / "memory.max").write_text(str(3 * GIB))
    (groups / "cpu.max").write_text("300000 100000")
    for text in ("0::/\n", "0::/docker/0a1b\n"):
        (tmp_path / "own").write_text(text)
        assert found() == (3, 3)
    (tmp_path / "own").unlink()
    assert found() == (16, 64)


def test_free_is_what_neither_the_machine_nor_a_group_has_given_away(
    groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MEMORY", tmp_path / "meminfo")
    assert limits.free_memory_bytes() == 32 * GIB
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {20 * 2**20} kB\n")
    assert limits.free_memory_bytes() == 20 * GIB
    for place, most, taken in (("pod", "max", 9 * GIB), ("pod/box", 8 * GIB, 3 * GIB)):
        (groups / place / "memory.max").write_text(f"{most}\n")
        (groups / place / "memory.current").write_text(f"{taken}\n")
    assert limits.free_memory_bytes() == 5 * GIB


def test_slots_fit_into_the_container(groups: Path) -> None:
    def slots() -> list[str]:
        given = find_slots(None, None, accelerator="cpu", devices=1, base_bytes=GIB, jobs=99)
        return [slot.environment["OMP_NUM_THREADS"] for slot in given]

    assert slots() == ["1"] * 11  # 0.8 of 64 GiB, 4.5 each
    (groups / "pod" / "memory.max").write_text(str(12 * GIB))
    assert slots() == ["8", "8"]
    (groups / "pod" / "cpu.max").write_text("400000 100000")
    assert slots() == ["2", "2"]
