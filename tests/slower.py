"""Cases that repeat what others prove of the same kind: they are marked `slow`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """All `cases`; those that are not among the `quick` ones are slow."""
    found = list(cases)
    assert all(case in found for case in quick), "a case was renamed"
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in found]
