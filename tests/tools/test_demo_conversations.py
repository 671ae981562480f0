"""The demo data: the shipped files, disjoint tracks, a recognisable voice, facts that matter."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import sentencepiece

from demo_assets.chats import Message
from demo_assets.conversations import ASSETS, MARKERS, SIZES, demo_conversations, jsonl
from demo_assets.corpus import chatml
from demo_assets.pretrain import ASSETS as BASE

LABEL = re.compile(r'^[-{ "]*(title|artist|album)"?: "?(.*?)"?$', re.IGNORECASE)


@cache
def splits() -> dict[str, list[list[Message]]]:
    return demo_conversations()


def names(user: str) -> dict[str, str]:
    """Title, artist and album as the user wrote them, whatever the layout."""
    parts = re.split(r"\n|; |, (?=\")", user)
    found = [LABEL.match(part) for part in parts]
    return {match[1].lower(): match[2].strip('"}') for match in found if match}


def first_replies(split: str) -> list[str]:
    return [messages[2]["content"] for messages in splits()[split]]


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def test_the_shipped_files_are_what_the_generator_makes() -> None:
    for split, conversations in splits().items():
        shipped = (ASSETS / f"{split}.jsonl").read_text(encoding="utf-8")
        assert shipped == jsonl(conversations)
        assert len(conversations) == SIZES[split]
    assert SIZES["train"] >= 400
    assert SIZES["valid"] >= 80


def test_conversations_have_a_system_prompt_and_some_have_two_turns() -> None:
    turns = Counter(len(messages) for messages in splits()["train"])
    assert set(turns) == {3, 5}
    assert turns[5] >= 40
    for messages in splits()["train"] + splits()["valid"]:
        assert [m["role"] for m in messages] == [
            "system",
            *["user", "assistant"] * (len(messages) // 2),
        ]
    assert len({messages[0]["content"] for messages in splits()["train"]}) > 10


def test_tracks_are_disjoint() -> None:
    seen: Counter[str] = Counter()
    for messages in splits()["train"] + splits()["valid"]:
        found = names(messages[1]["content"])
        assert {"title", "artist"} <= set(found), messages[1]["content"]
        seen.update(found.values())
    assert seen.most_common(1)[0][1] == 1
    assert len(seen) > 1200


def test_every_reply_has_the_voice_and_names_the_track() -> None:
    for split in SIZES:
        for messages in splits()[split]:
            reply, found = messages[2]["content"], names(messages[1]["content"])
            assert sum(reply.lower().count(marker) for marker in MARKERS) >= 2, reply
            assert found["title"].lower() in reply.lower()
            assert found["artist"] in reply


def test_a_reply_uses_only_what_the_user_gave() -> None:
    told = 0
    for messages in splits()["train"]:
        for number in re.findall(r"\d+", messages[2]["content"]):
            assert number in messages[1]["content"]
            told += 1
    assert told > 100


def test_no_reply_is_another_ones_near_duplicate() -> None:
    replies = first_replies("train") + first_replies("valid")
    assert len(set(replies)) == len(replies)
    grams = [trigrams(reply) for reply in replies]
    known = grams[: SIZES["train"]]
    nearest = [
        max(len(mine & other) / len(mine | other) for other in known)
        for mine in grams[SIZES["train"] :]
    ]
    assert sum(nearest) / len(nearest) < 0.4
    assert sum(value > 0.6 for value in nearest) <= 1


def test_a_memorised_answer_does_not_score() -> None:
    """Facts of the track in the reply: all in the true one, next to none in the best constant."""
    asked = [names(messages[1]["content"]) for messages in splits()["valid"]]
    replies = first_replies("valid")

    def score(reply: str, facts: dict[str, str]) -> float:
        return sum(facts[label].lower() in reply.lower() for label in ("title", "artist")) / 2

    true = sum(map(score, replies, asked)) / len(asked)
    constant = max(
        sum(score(reply, facts) for facts in asked) / len(asked) for reply in first_replies("train")
    )
    assert true == 1.0
    assert constant < 0.05


def test_conversations_are_short_in_the_shipped_tokenizer() -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(BASE / "tokenizer.model"))
    lengths = [len(tokenizer.encode(chatml(messages))) for messages in splits()["train"]]
    assert 120 < sum(lengths) / len(lengths) < 220
    assert max(lengths) < 400
    replies = [len(tokenizer.encode(reply)) for reply in first_replies("train")]
    assert 40 < sum(replies) / len(replies) < 100
