"""The negative guard: distinct, reproducible, tempting; its answers hold no tag."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from graftlab.data.check import problems_in, reserved_pattern
from graftlab.errors import ConfigError
from graftlab.recipes.negative import FACTS, KINDS, SPEAKERS, NegativeGuard
from graftlab.types import Message

RESERVED = [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<bos>",
    "<eos>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|channel|>",
    "<|message|>",
    "<|start|>",
    "<|return|>",
]
TAG = re.compile(
    r"[<>{}\[\]|#]|\b(?:human|user|assistant|ai|bot|me|q|a|instruction|response) ?:|\(human|\(ass",
    re.I,
)


def chats(**settings: Any) -> list[list[Message]]:
    return [
        [Message(turn["role"], turn["content"]) for turn in record.body["messages"]]
        for record in NegativeGuard(**settings).records()
    ]


def test_at_least_a_hundred_distinct_ones_of_every_kind() -> None:
    records = list(NegativeGuard().records())
    assert len(records) >= 100
    assert len({str(record.body) for record in records}) == len(records)
    kinds = Counter(record.labels["guard"] for record in records)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) * 2 >= max(kinds.values())
    said = Counter(record.body["messages"][-1]["content"] for record in records)
    assert max(said.values()) <= 8
    assert [record.origin for record in records[:2]] == ["negative-guard:1", "negative-guard:2"]


def test_all_possible_ones_can_be_trained_on() -> None:
    """No turn holds what a tokenizer reserves, roles alternate, the answer is there and clean."""
    pattern = reserved_pattern(RESERVED)
    every = chats(count=len(KINDS) * len(FACTS) * len(SPEAKERS))
    for messages in every:
        assert problems_in(messages, reserved=pattern) == []
        for message in messages:
            if message.role == "assistant":
                assert not TAG.search(message.content), message.content
    tempted = sum(
        any(human in message.content or model in message.content for human, model in SPEAKERS)
        for messages in every
        for message in messages
        if message.role == "user"
    )
    assert tempted >= 0.9 * len(every)


def test_the_seed_decides() -> None:
    assert chats(count=50) == chats(count=50) == chats(count=60)[:50]
    assert chats(count=50, seed=1) != chats(count=50)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"negative\.count=99999"):
        NegativeGuard(count=99999)
