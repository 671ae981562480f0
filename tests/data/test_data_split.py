"""The split: by a hash that is pinned, at a mark that is exact, never all and never none."""

from __future__ import annotations

import hashlib
from datetime import date

import pytest

from graftlab.data.split import content_hash, split_hash, validation_mask
from graftlab.types import Conversation, Message

HALF = 2**63


def test_a_hash_is_of_roles_and_contents_with_their_lengths() -> None:
    """Pinned: data that was split once is split alike by every version."""
    messages = (Message("user", "Grüße"), Message("assistant", ""))
    told = b""
    for text in (b"user", "Grüße".encode(), b"assistant", b""):
        told += len(text).to_bytes(8, "little") + text
    wanted = int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little")
    assert content_hash(messages) == wanted
    assert content_hash(messages) == 4887821309074259480
    assert 0 <= wanted < 2**64


def test_where_one_text_ends_and_another_begins_counts() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")]
    found = {content_hash((Message("user", a), Message("user", b))) for a, b in pairs}
    assert len(found) == 4
    roles = {content_hash((Message(role, "a"),)) for role in ("user", "assistant")}
    assert len(roles) == 2
    assert content_hash((Message("user", "a"),)) != content_hash((Message("user", "a"),) * 2)


def test_calls_and_reasoning_count_and_say_which_they_are() -> None:
    def call(**arguments: object) -> dict[str, object]:
        return {"id": "7", "function": {"name": "find", "arguments": arguments}}

    turns = [
        Message("assistant", "a"),
        Message("assistant", "a", reasoning="why"),
        Message("assistant", "a", tool_calls=(call(q=1),)),
        Message("assistant", "a", tool_calls=(call(q=2),)),
        Message("assistant", "a", tool_calls=(call(q=1),), reasoning="why"),
    ]
    assert len({content_hash([turn]) for turn in turns}) == len(turns)
    named = {**call(q=1), "id": "8"}  # the same call under another id
    again = Message("assistant", "a", tool_calls=(named,))
    assert content_hash([again]) == content_hash([turns[2]])
    day = Message("assistant", "a", tool_calls=(call(at=date(2026, 1, 2)),))  # as Parquet has them
    text = Message("assistant", "a", tool_calls=(call(at="2026-01-02"),))
    assert content_hash([day]) == content_hash([text])


def test_a_prompt_keeps_its_answers_on_one_side_only_where_they_are_compared() -> None:
    def asked(question: str, answer: str) -> tuple[Message, ...]:
        return Message("user", question), Message("assistant", answer)

    good, bad, other = asked("q", "good"), asked("q", "bad"), asked("p", "good")
    assert split_hash(Conversation(good)) == content_hash(good)
    assert split_hash(Conversation(good)) != split_hash(Conversation(bad))
    prompt = content_hash(good[:1])
    assert split_hash(Conversation(good, rejected=bad)) == prompt
    assert split_hash(Conversation(bad, rejected=good)) == prompt
    assert split_hash(Conversation(bad, desirable=False)) == prompt
    assert split_hash(Conversation(other, rejected=bad)) != prompt


@pytest.mark.parametrize(
    ("hashes", "fraction", "held"),
    [
        ([HALF - 1, HALF, HALF + 1], 0.5, [True, False, False]),  # the mark itself is beyond it
        ([0, 2**62, 2**64 - 1], 0.25, [True, False, False]),
        ([5, 6, 7, 6], 0.0, [False] * 4),
        ([5, 6, 7, 6], -1.0, [False] * 4),
        ([HALF, HALF + 2, HALF + 1], 0.1, [True, False, False]),  # none: the lowest
        ([HALF, HALF + 2, HALF], 0.1, [True, False, True]),  # with its twins
        ([1, 3, 2, 3], 0.5, [True, False, True, False]),  # all: but the highest
        ([1, 1], 0.5, [False, False]),  # a single one stays in training
        ([HALF, HALF], 0.1, [False, False]),
        ([1], 0.9, [False]),
        ([], 0.5, []),
    ],
)
def test_which_are_held_out(hashes, fraction, held) -> None:
    assert validation_mask(hashes, fraction) == held


def test_a_side_depends_on_itself_alone() -> None:
    hashes = [content_hash((Message("user", str(i)),)) for i in range(400)]
    held = validation_mask(hashes, 0.3)
    assert 80 < sum(held) < 160
    assert validation_mask(hashes[100:300], 0.3) == held[100:300]
