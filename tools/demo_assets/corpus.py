"""The pretraining text: prose and conversations, document by document, a function of the seed.

    document k of a split  =  Pen(seed, split, k)  ->  prose, or a conversation in ChatML

So the held-out split, or any part of the corpus, is made without the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from demo_assets.chats import CHATS, Message
from demo_assets.grammar import Pen
from demo_assets.names import title
from demo_assets.prose import PROSE

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

Layout = Callable[[Iterable[Message]], str]

CHAT_SHARE = 0.5
LONG_SHARE = 0.03


def chatml(messages: Iterable[Message]) -> str:
    """A conversation as the model reads it."""
    return "".join(f"{TURN_START}{m['role']}\n{m['content']}{TURN_END}\n" for m in messages)


def document(pen: Pen, *, chat: Layout = chatml) -> str:
    """One document: a conversation, one to three short texts, or a long text with headings."""
    if pen.chance(CHAT_SHARE):
        return chat(pen.pick(CHATS)(pen))
    if pen.chance(LONG_SHARE):
        sections = [f"{title(pen)}\n{pen.pick(PROSE)(pen)}" for _ in range(pen.number(8, 24))]
        return "\n\n".join(sections) + "\n"
    return "\n\n".join(pen.pick(PROSE)(pen) for _ in range(pen.number(1, 3))) + "\n"


def documents(seed: int, split: str, count: int, *, chat: Layout = chatml) -> Iterator[str]:
    """The first `count` documents of a split (`train`, `heldout`), conversations as `chat` lays
    them out."""
    for index in range(count):
        yield document(Pen(seed, split, index), chat=chat)


def digest(texts: Iterable[str]) -> str:
    """SHA-256 over the texts, each ended by a zero byte."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode() + b"\0")
    return sha.hexdigest()
