"""Training and validation: split by what a conversation says, not by where it stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from graftlab.types import Conversation, Message


def content_hash(messages: Sequence[Message]) -> int:
    """64 bits that depend on roles, contents, calls and reasoning only, evenly spread."""
    parts: list[bytes] = []
    for message in messages:
        for text in (message.role, message.content, *_beside(message)):
            data = text.encode("utf-8")
            parts += (len(data).to_bytes(8, "little"), data)
    return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest(), "little")


def _beside(message: Message) -> list[str]:
    """What else a turn says; nothing for most, whose hash is that of role and content."""
    calls = [json.dumps(call["function"], default=str) for call in message.tool_calls]
    return calls if message.reasoning is None else [*calls, message.reasoning]


def split_hash(conversation: Conversation) -> int:
    """What decides on which side a row falls: its content, or of preference data the prompt alone.

    So no prompt has one of its answers on either side.
    """
    if conversation.kind == "answers":
        return content_hash(conversation.messages)
    return content_hash(conversation.without_last_answer().messages)


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
