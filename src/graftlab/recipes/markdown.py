"""The Markdown slice: answers whose prose holds a list show it as one; all others are left alone.

    First wash it. Then dry it. Finally oil it.     1. First wash it.
                                                 -> 2. Then dry it.
                                                    3. Finally oil it.

    Metals include: iron, zinc, and tin.         -> Metals include:      - iron   - zinc   - tin

Four kinds of list are known: numbers within a line, bullets that are not Markdown's, sentences that
count (first, then, finally), and what is listed behind a colon. Nothing is reworded, and nothing is
made a heading. What has a form of its own stays: letters, dialogues, verse, code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from graftlab.errors import require_range
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.sentences import sentences_of

NOT_CHAT = "not a conversation"
ALREADY = "already in Markdown"
UNSUITED = "no list in it"
ENOUGH = "beyond markdown.limit"

_MARKDOWN = re.compile(r"^[ \t]*(?:[-*+] |\d+[.)] |#{1,6} |>|\||```)|\*\*|```", re.M)
_BULLET = re.compile(r"^[ \t]*[•◦▪●‣∙·][ \t]*(?=\S)", re.M)
_NUMBER = re.compile(r"(?<!\S)\(?(\d{1,2})[.)]\s+(?=\S)")
_FIRST = re.compile(
    r"(?:first(?:ly)?|first of all|to (?:begin|start)|(?:begin|start) (?:by|with))\b",
    re.I,
)
_STEP = re.compile(
    r"(?:second(?:ly)?|third(?:ly)?|fourth(?:ly)?|fifth(?:ly)?|next|then|after that|afterwards?"
    r"|finally|last(?:ly)?)\b(?! time| day| year| week)",
    re.I,
)
_LISTED = re.compile(r"(?P<lead>[^:\n]{8,200}):\s+(?P<items>[^:\n]+?)[.]?$")
_LAST = re.compile(r"^(?:and|or) ")
_OWN_FORM = re.compile(
    r"^(?:dear|hi|hello|subject:|sincerely|(?:best|kind|warm)? ?regards|yours|verse|chorus)\b"
    r"|^step \d|^\W?[A-Z][\w' ]{0,20}: ?[\"“]|[{}<>=\[\]`\\]",
    re.I | re.M,
)
"""Letters, verse, steps with a title each, dialogue in quotation marks, code and formulas."""
_SPEAKER = re.compile(r"^([A-Z][\w' ]{0,20}): ?\S", re.M)
_ASKED = re.compile(
    r"\b(?:poem|haiku|sonnet|limerick|rap|song|lyrics?|jingle|verses?|rhyme|story|tale|narrative"
    r"|dialogue|conversation|script|screenplay|scene|letter|e-?mail|speech|tweet|code|program|query"
    r"|function|html|css|sql|regex)\b",
    re.I,
)
"""Questions for something that has a form of its own."""
_LONGEST_ITEM, _LONGEST_NAME = 600, 60
"""Characters of an item that was a sentence or more, and of one behind a colon."""


@dataclass(kw_only=True, slots=True)
class Markdown:
    """`markdown=default`: a slice of chats whose answers show the list that is in them."""

    limit: int | None = 60
    """So many answers, the first that suit; null takes all that do."""
    min_items: int = 3
    """Shortest list."""

    def __post_init__(self) -> None:
        require_range("markdown.limit", self.limit, least=1)
        require_range("markdown.min_items", self.min_items, least=2)

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
            elif (said := structured(str(question), answer, self.min_items)) is None:
                drop(record, UNSUITED)
            else:
                made += 1
                yield _with_answer(record, said)


def _with_answer(record: Record, answer: str) -> Record:
    messages: list[dict[str, Any]] = record.body["messages"]
    changed = [*messages[:-1], {**messages[-1], "content": answer}]
    return replace(record, body={**record.body, "messages": changed})


def structured(question: str, answer: str, least: int = 3) -> str | None:
    """`answer` with its list as one of Markdown; None where it holds no list of `least` items."""
    answer = answer.strip()
    if _ASKED.search(question) or _OWN_FORM.search(answer) or _is_dialogue(answer):
        return None
    if len(_BULLET.findall(answer)) >= least:
        return _BULLET.sub("- ", answer)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n(?:[ \t]*\n)+", answer)]
    if (found := _steps(paragraphs, least)) is not None:
        return "\n\n".join(found)
    blocks = [_numbered(part, least) or _behind_colon(part, least) for part in paragraphs]
    if not any(blocks):
        return None
    pairs = zip(paragraphs, blocks, strict=True)
    return "\n\n".join(piece for part, block in pairs for piece in block or [part])


def _is_dialogue(answer: str) -> bool:
    """Whether several lines begin with somebody's name, one of them more than once."""
    speakers = _SPEAKER.findall(answer)
    return len(speakers) > len(set(speakers))


def _numbered(paragraph: str, least: int) -> list[str] | None:
    """A paragraph with "1. ... 2. ... 3. ..." in it, as its lead, the list and what follows."""
    marks: list[re.Match[str]] = []
    for mark in _NUMBER.finditer(paragraph):
        if int(mark[1]) == len(marks) + 1:
            marks.append(mark)
    if len(marks) < least:
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(paragraph)]
    items = [paragraph[m.end() : end].strip() for m, end in zip(marks, ends, strict=True)]
    if max(map(len, items)) > _LONGEST_ITEM:
        return None
    items, after = _ended(items)
    before = paragraph[: marks[0].start()].strip()
    return [part for part in (before, _ordered(items), after) if part]


def _ended(items: list[str]) -> tuple[list[str], str]:
    """Items, and what follows them: of single sentences, the last one has but one as well."""
    *others, last = items
    said = sentences_of(last)
    if len(said) > 1 and all(len(sentences_of(item)) == 1 for item in others):
        return [*others, said[0]], " ".join(said[1:])
    return items, ""


def _steps(paragraphs: list[str], least: int) -> list[str] | None:
    """The paragraphs with the sentences that count as a numbered list."""
    said = [(place, s) for place, part in enumerate(paragraphs) for s in sentences_of(part)]
    first = next((i for i, (_, sentence) in enumerate(said) if _FIRST.match(sentence)), len(said))
    later = [i for i, (_, s) in enumerate(said) if i > first and _STEP.match(s)]
    if len(later) + 1 < least:
        return None
    starts = [first, *later]
    last_place = said[starts[-1]][0]
    end = next((i for i, (place, _) in enumerate(said) if place > last_place), len(said))
    edges = zip(starts, [*starts[1:], end], strict=True)
    items = [" ".join(sentence for _, sentence in said[a:b]) for a, b in edges]
    if max(map(len, items)) > _LONGEST_ITEM:
        return None
    items, after = _ended(items)
    place = said[first][0]
    lead = " ".join(sentence for at, sentence in said[:first] if at == place)
    pieces = [*paragraphs[:place], lead, _ordered(items), after, *paragraphs[last_place + 1 :]]
    return [piece for piece in pieces if piece]


def _behind_colon(paragraph: str, least: int) -> list[str] | None:
    """A paragraph in which a sentence lists short things behind a colon."""
    sentences = sentences_of(paragraph)
    for place, sentence in enumerate(sentences):
        found = _LISTED.fullmatch(sentence)
        if found is None:
            continue
        parts = re.split(r"; ?" if ";" in found["items"] else r", ?", found["items"])
        if len(parts) > 1 and parts[-1].count(" and ") == 1 and not _LAST.match(parts[-1]):
            parts[-1:] = parts[-1].split(" and ")  # "a, b and c"
        joined = sum(bool(_LAST.match(part)) for part in parts[:-1])  # a list within the list
        items = [_LAST.sub("", part.strip()) for part in parts]
        whole = all(map(_is_item, items))
        if len(items) < least or joined or not whole or found["lead"].count('"') % 2:
            continue
        before, after = " ".join(sentences[:place]), " ".join(sentences[place + 1 :])
        points = "\n".join(f"- {item}" for item in items)
        lead = f"{before} {found['lead']}:".strip()
        return [part for part in (lead, points, after) if part]
    return None


def _is_item(text: str) -> bool:
    """Whether a text can be one of several short things: no sentence, no half of a quotation."""
    words = 0 < len(text) <= _LONGEST_NAME and any(map(str.isalpha, text))
    return words and not re.search(r"[.!?]$|[.!?] ", text) and text.count('"') % 2 == 0


def _ordered(items: list[str]) -> str:
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
