"""Lines of a text as blocks, and blocks as paragraphs: wraps and hyphenation are undone here.

text  ──▶ blocks (runs of lines between blank ones, each with its line number)
      ──▶ paragraphs (one line each; words broken at a line's end are whole again)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

GAP = "\x00"
"""Stands where a note was cut out of the text: the line it leaves is not a blank one."""

UNWRAPPED = 160
"""A line longer than this was never wrapped by hand: it is a paragraph."""

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
# Not begun within a word: each of its letters would be tried as the first.
_BROKEN = re.compile(r"(?<![^\W\d_])([^\W\d_]+)-$")
_HALVES = re.compile(r"(?<![^\W\d_])[^\W\d_]+-\n\s*[^\W\d_]+")
_FIRST = re.compile(r"[^\W\d_]+")
_CLOSED = re.compile(r"""[.!?:][)'"\]]*$""")
_OPENING = re.compile(r"""[('"\[]*""")


@dataclass(frozen=True, slots=True)
class Block:
    """Lines between blank ones, as they stand."""

    line: int
    """Number of the first line, 1-based."""
    lines: tuple[str, ...]
    after_cut: bool = False
    """Something was cut out between the block before and this one."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def words(self) -> int:
        return sum(len(line.split()) for line in self.lines)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A whole paragraph in one line."""

    line: int
    text: str
    section: int = 0
    """Paragraphs of one section are told together; a heading begins the next."""

    @property
    def words(self) -> int:
        return len(self.text.split())


def blocks_of(text: str) -> Iterator[Block]:
    """Runs of lines between blank lines; GAPs and form feeds leave `after_cut` behind."""
    held: list[str] = []
    start, cut = 1, False
    for number, line in enumerate([*text.split("\n"), ""], 1):
        marked, page = GAP in line, "\f" in line
        if page and held:
            yield Block(start, tuple(held), cut)
            held = []
        cut = cut or page
        line = line.replace(GAP, "").replace("\f", "").rstrip()
        if line:
            start = start if held else number
            held.append(line)
            # A cut inside a block is healed by joining its lines; one before it is remembered.
            cut = cut or (marked and len(held) == 1)
        elif held and not marked:
            yield Block(start, tuple(held), cut)
            held, cut = [], False
        elif not held:
            cut = cut or marked


class WordCounts:
    """The words of a text, by which a hyphen at a line's end is judged."""

    def __init__(self, text: str) -> None:
        whole = _HALVES.sub(" ", text)
        self.count = Counter(word.lower() for word in _WORD.findall(whole))

    def join(self, head: str, tail: str) -> str:
        """The word that was broken into `head-` and `tail`, with its hyphen if it has one.

        be-/neath        beneath         seen elsewhere, or the halves are no (long) words
        stone-/crowned   stone-crowned   so spelt elsewhere, or both halves are long words
        """
        whole, split = (head + tail).lower(), f"{head}-{tail}".lower()
        if self.count[whole] != self.count[split]:
            hyphen = self.count[split] > self.count[whole]
        else:
            known = self.count[head.lower()] and self.count[tail.lower()]
            # "with-in" and "to-gether" are no compounds, though made of words.
            hyphen = bool(known) and min(len(head), len(tail)) > 3
        return f"{head}-{tail}" if hyphen else head + tail


def paragraphs_of(block: Block, vocabulary: WordCounts) -> Iterator[tuple[int, str]]:
    """(line, text) of each paragraph in a block of prose."""
    lines = [(block.line + offset, line) for offset, line in enumerate(block.lines)]
    group: list[tuple[int, str]] = []
    indented = _has_first_line_indents(block.lines)
    for number, line in lines:
        new = indented and line[0] == " " and group and group[-1][1][0] != " "
        if group and (new or len(line) > UNWRAPPED or len(group[-1][1]) > UNWRAPPED):
            yield group[0][0], join_lines((text for _, text in group), vocabulary)
            group = []
        group.append((number, line))
    yield group[0][0], join_lines((text for _, text in group), vocabulary)


def _has_first_line_indents(lines: Sequence[str]) -> bool:
    """Whether paragraphs are told apart by an indented first line rather than a blank one."""
    count = sum(line[0] == " " for line in lines)
    return 0 < count <= len(lines) / 2


def join_lines(lines: Iterable[str], vocabulary: WordCounts) -> str:
    """Wrapped lines as one, words whole, one space between words."""
    parts: list[str] = []
    for line in lines:
        add_line(parts, " ".join(line.split()), vocabulary)
    return "".join(parts)


def add_line(parts: list[str], line: str, vocabulary: WordCounts) -> None:
    """Go on with a paragraph that is `parts` end to end, mending the word or dash between.

    Only the last part is looked at, so that a paragraph of any length takes a line in one step.
    """
    if not parts or not line:
        parts += [line] if line else []
        return
    before = parts[-1]
    broken, first = _BROKEN.search(before), _FIRST.match(line)
    if broken and first and line[0].islower():
        word = vocabulary.join(broken.group(1), first.group())
        parts[-1:] = [before[: broken.start()], word + line[first.end() :]]
    else:
        # A hyphen between figures or capitals, and a dash, join as they are.
        glue = "" if before[-1] in "-—" or line[0] == "—" else " "
        parts[-1] += glue
        parts.append(line)


def goes_on(before: str, after: str) -> bool:
    """Whether `after` continues the sentence in which `before` stops."""
    if _CLOSED.search(before):
        return False
    opening = _OPENING.match(after)
    assert opening is not None
    return after[opening.end() :][:1].islower() or before.endswith("-")
