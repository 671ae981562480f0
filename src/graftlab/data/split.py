"""Training and validation: split by what a conversation says, not by where it stands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from graftlab.types import Message


def content_hash(messages: Sequence[Message]) -> int:
    """64 bits that depend on roles and contents only, evenly spread."""
    parts: list[bytes] = []
    for message in messages:
        for text in (message.role, message.content):
            data = text.encode("utf-8")
            parts += (len(data).to_bytes(8, "little"), data)
    return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest(), "little")


def validation_mask(hashes: Sequence[int], fraction: float) -> list[bool]:
    """Which conversations are held out: those whose hash falls into the first `fraction`.

    A conversation's side depends on itself alone, so adding rows moves none, and duplicates fall
    together. When nothing falls below the mark, the lowest hash is held out, so that there is a
    validation loss at all; a single distinct conversation stays in training.
    """
    if fraction <= 0 or not hashes:
        return [False] * len(hashes)
    mark = int(fraction * 2**64)
    held = [value < mark for value in hashes]
    if len(set(hashes)) > 1:
        lowest, highest = min(hashes), max(hashes)
        if not any(held):
            return [value == lowest for value in hashes]
        if all(held):
            return [value != highest for value in hashes]
    elif all(held):
        return [False] * len(hashes)
    return held
