"""The allocator's settings: applied once, on glibc only, and felt."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from graftlab.models import allocator

FAULTS = """
import resource, sys
from graftlab.models.allocator import tune_allocator
if sys.argv[1] == "tuned":
    assert tune_allocator() and tune_allocator()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        b"x" * (1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not allocator._is_glibc(), reason="the settings are glibc's")
def test_memory_is_used_again_instead_of_faulted_in_anew() -> None:
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", FAULTS, mode]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    stock, tuned = faults("stock"), faults("tuned")
    assert stock > 200  # huge pages, where they are on, leave 32 of the 16,384 faults a block
    assert tuned < 20


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_tuned", False)

    def unknown(_: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert not allocator.tune_allocator()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LD_PRELOAD", "/usr/lib/libtcmalloc.so.4"), ("MALLOC_TRIM_THRESHOLD_", "1")],
)
def test_the_users_own_settings_win(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setattr(allocator, "_tuned", False)
    monkeypatch.setenv(variable, value)
    assert not allocator.tune_allocator()
