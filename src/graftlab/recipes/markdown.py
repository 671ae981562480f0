"""The Markdown slice: answers restructured into headings and lists by rule, facts untouched.

    Wash it first. Then dry it. Oil it last.          ## Clean a bicycle
                                                 ->
                                                      1. Wash it first.
                                                      2. Then dry it.
                                                      3. Oil it last.

Sentences stay word for word; what is added is layout, and headings made of words that stand in the
question or the paragraph already.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from graftlab.errors import require_range
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.wordlists import words_of_kind

NOT_CHAT = "not a conversation"
ALREADY = "already in Markdown"
UNSUITED = "too little to structure"
ENOUGH = "beyond markdown.limit"

_MARKDOWN = re.compile(r"^\s*(?:[-*+] |\d+[.)] |#{1,6} |>|\||```)|\*\*|```", re.M)
_STEP = re.compile(
    r"(?:first|firstly|second|secondly|third|next|then|after that|afterwards?|finally|lastly|start"
    r"|begin)\b",
    re.I,
)
_ASKS = re.compile(
    r"^(?:please|can you|could you|would you|will you|how (?:do|can|should|would) (?:i|you|we|one)"
    r"|how to|what (?:is|are|was|were)|who (?:is|was|are)|tell me(?: about)?|explain(?: to me)?"
    r"|describe|write(?: me)?|give me|list|name|why (?:do|does|is|are|did)|where (?:is|are)"
    r"|when (?:is|was|did))\s+",
    re.I,
)
_WORD = re.compile(r"[^\W\d_]{4,}(?:-[^\W\d_]+)*")
_COMMON = words_of_kind("common word")


@dataclass(kw_only=True, slots=True)
class Markdown:
    """`markdown=default`: a slice of chats whose answers show structure."""

    limit: int | None = 60
    """So many answers, the first that suit; null takes all that do."""
    min_sentences: int = 3
    """Answers of fewer sentences have nothing to structure."""

    def __post_init__(self) -> None:
        require_range("markdown.limit", self.limit, least=1)
        require_range("markdown.min_sentences", self.min_sentences, least=2)

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """The chats that suit, with the last answer restructured; the others are dropped."""
        made = 0
        for record in records:
            messages = record.body.get("messages", []) if record.kind == "chat" else []
            if not messages or messages[-1]["role"] != "assistant":
                drop(record, NOT_CHAT, f"a {record.kind} record")
                continue
            if self.limit is not None and made >= self.limit:
                drop(record, ENOUGH)
                continue
            question = messages[-2]["content"] if len(messages) > 1 else ""
            answer = str(messages[-1]["content"])
            if _MARKDOWN.search(answer):
                drop(record, ALREADY)
            elif len(sentences_of(answer)) < self.min_sentences:
                drop(record, UNSUITED, f"{len(sentences_of(answer))} sentences")
            else:
                made += 1
                yield _with_answer(record, structured(str(question), answer))


def _with_answer(record: Record, answer: str) -> Record:
    messages: list[dict[str, Any]] = record.body["messages"]
    changed = [*messages[:-1], {**messages[-1], "content": answer}]
    return replace(record, body={**record.body, "messages": changed})


def structured(question: str, answer: str) -> str:
    """`answer` under a heading: its paragraphs as sections, or its sentences as a list."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", answer.strip())]
    title = _title(question) or _topic(answer, used=set())
    head = [f"## {title}"] if title else []
    if len(paragraphs) == 1:
        return "\n\n".join([*head, *_list(sentences_of(paragraphs[0]))])
    sections, used = [], {title.lower()}
    for paragraph in paragraphs:
        topic = _topic(paragraph, used=used)
        used.add(topic.lower())
        sections += [f"### {topic}"] if topic else []
        sentences = sentences_of(paragraph)
        sections += _list(sentences) if len(sentences) > 3 else [paragraph]
    return "\n\n".join([*head, *sections])


def _list(sentences: list[str]) -> list[str]:
    """Sentences as a numbered list where they are steps, else as a lead and its points."""
    steps = sum(bool(_STEP.match(sentence)) for sentence in sentences)
    if steps >= 2:
        return ["\n".join(f"{n}. {sentence}" for n, sentence in enumerate(sentences, 1))]
    lead, *points = sentences
    return [lead, "\n".join(f"- {sentence}" for sentence in points)]


def _title(question: str) -> str:
    """The question's matter as a heading, or "" when it is no short question."""
    line = question.strip().split("\n")[0].strip()
    bare = _ASKS.sub("", _ASKS.sub("", line)).strip().rstrip("?.!: ")
    words = bare.split()
    if not 1 <= len(words) <= 9 or re.search(r"[<>{}\[\]#|*_`]|[.!?,;:]", bare):
        return ""
    return bare[0].upper() + bare[1:]


def _topic(paragraph: str, *, used: set[str]) -> str:
    """The word a paragraph comes back to, the earliest of the most frequent."""
    words = [word for word in _WORD.findall(paragraph) if word.lower() not in _COMMON]
    counts = Counter(word.lower() for word in words)
    best = max(
        (word for word in words if word.lower() not in used),
        key=lambda word: counts[word.lower()],
        default="",
    )
    return best[:1].upper() + best[1:]
