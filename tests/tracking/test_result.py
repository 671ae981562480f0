"""The peak a run reports is its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURE = "from graftlab.tracking.result import peak_rss_mb; print(peak_rss_mb())"
HOLD = "held = bytearray(b'x') * (300 * 2**20)"
START = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {MEASURE!r}])"


def measured(program: str) -> float:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it without the starter's")
def test_a_peak_is_not_that_of_whoever_started_the_program() -> None:
    alone, beside = measured(START), measured(f"{HOLD}; {START}")
    assert 5 < alone < 200
    assert beside < alone + 50


def test_a_peak_is_what_was_held_though_it_is_free_again() -> None:
    assert measured(f"{HOLD}; del held; {MEASURE}") > 300
