"""What the list of tools takes of a prompt; templates write it into the system or the user turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from graftlab.errors import ModelError
from graftlab.text.encode import TokenSet
from graftlab.text.tokenizer import Tokenizer, marker_pattern
from graftlab.types import Conversation, Message

PARTS = ("system", "tools", "user", "assistant")


def parts_with_tools(
    tokens: TokenSet, conversations: Sequence[Conversation], tokenizer: Tokenizer
) -> dict[str, np.ndarray]:
    """Tokens of each document by PARTS, (n,) each: `tokens.parts`, less what the tools take."""
    known: dict[str, tuple[int, bool]] = {}
    parts = np.insert(tokens.parts, 1, 0, axis=1)
    for row, source in zip(parts, tokens.sources.tolist(), strict=True):
        conversation = conversations[source]
        if not conversation.tools:
            continue
        first = conversation.messages[0]
        system = first if first.role == "system" else None
        key = json.dumps([conversation.tools, system is None])
        if key not in known:
            known[key] = _tool_list(conversation.tools, system, tokenizer)
        count, in_system = known[key]
        place = 0 if in_system else 2
        row[1] = min(count, int(row[place]))
        row[place] -= row[1]
    return dict(zip(PARTS, parts.T, strict=True))


def _tool_list(
    tools: Sequence[dict[str, Any]], system: Message | None, tokenizer: Tokenizer
) -> tuple[int, bool]:
    """Tokens that a prompt has more with these tools, and whether the system turn has them."""
    asked = [*([system] if system else []), Message("user", "Hi")]
    try:
        shown, plain = (
            tokenizer.render_text(asked, tools=given, generation_prompt=True)
            for given in (tools, ())
        )
    except ModelError:  # of a template that wants more of a conversation than this
        return 0, False
    with_tools, without = tokenizer.encode_text([shown, plain])
    count = max(0, len(with_tools) - len(without))
    if system is None:
        return count, False
    said = system.content.strip()
    end = marker_pattern(tokenizer.markers).search(plain, plain.find(said) + len(said))
    return count, end is not None and not shown.startswith(plain[: end.end()])
