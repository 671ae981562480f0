"""What tests of Apple's model share."""

from __future__ import annotations

import pytest

from graftlab.registry import load_rooms

load_rooms()


@pytest.fixture(autouse=True)
def strangers() -> None:
    """No base of this process remembers what it answered an earlier test."""
    from graftlab.models.cache import _resting

    for base, _ in _resting.values():
        base.answers.clear()
