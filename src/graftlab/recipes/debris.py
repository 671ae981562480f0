"""What breaks the fourth wall in a book's text, found by rule: each piece with line and reason.

    text ──▶ licence cut off ──▶ notes cut out ──▶ blocks ──▶ prose, or a Piece with its reason

What no rule knows stays in, and `curate.min_para_words` drops what is too short to be prose.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from graftlab.recipes import marks
from graftlab.recipes.lines import GAP, Block, blocks_of


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that was stripped."""

    line: int
    text: str
    reason: str


class Book:
    """Splits one text, its characters already plain, into prose and pieces of debris.

    `prose` holds the blocks to keep, each with the number of its section; `pieces` the rest.
    """

    def __init__(self, text: str) -> None:
        self.pieces: list[Piece] = []
        self.prose: list[tuple[int, Block]] = []
        text = self._without_notes(self._without_licence(text))
        self._sort(_Layout(list(self._without_furniture(list(blocks_of(text))))))

    def _without_licence(self, text: str) -> str:
        """Blank what lies outside the marks that Project Gutenberg sets."""
        start = max((match.end() for match in marks.START.finditer(text)), default=0)
        end = marks.END.search(text, start)
        stop = end.start() if end else len(text)
        for first, last in ((0, start), (stop, len(text))):
            for block in blocks_of("\n" * text.count("\n", 0, first) + text[first:last]):
                self._strip(block, marks.LICENCE)
        return "\n" * text.count("\n", 0, start) + text[start:stop]

    def _without_notes(self, text: str) -> str:
        """Cut bracketed notes and page markers out, whatever they span; the lines remain."""
        at, line = 0, 1

        def cut(match: re.Match[str]) -> str:
            nonlocal at, line
            line, at = line + text.count("\n", at, match.start()), match.start()
            found = match.group()
            self.pieces.append(Piece(line, found, marks.note_reason(found)))
            return GAP + ("\n" + GAP) * found.count("\n")

        return marks.INLINE_NOTE.sub(cut, text)

    def _without_furniture(self, blocks: Sequence[Block]) -> Iterator[Block]:
        """Blocks without page numbers, running heads and footnotes, healed over the cuts."""
        is_head = _running_heads(blocks)
        cut = False
        for block in blocks:
            alone = len(block.lines) == 1
            kept: list[tuple[int, str]] = []
            for line, text in enumerate(block.lines, block.line):
                if _is_page(text, alone=alone) or is_head(text):
                    self.pieces.append(Piece(line, text.strip(), marks.PAGE))
                    cut = cut or not kept
                else:
                    kept.append((line, text))
            if not kept:
                continue
            rest = Block(kept[0][0], tuple(text for _, text in kept), cut or block.after_cut)
            cut = bool(marks.FOOTNOTE_LINE.match(kept[0][1]))
            if cut and not marks.ORNAMENT_LINE.fullmatch(rest.text):
                self._strip(rest, marks.FOOTNOTE)
            else:
                yield rest

    def _sort(self, layout: _Layout) -> None:
        """Walk through the blocks, in or out of a preface, and keep what is prose."""
        section, within = 0, ""
        for index, block in enumerate(layout.blocks):
            kind = layout.kinds[index]
            if kind in (marks.FRONT, marks.BACK, marks.CONTENTS):
                # A preface that no heading ends would swallow the book: only its title goes.
                within = kind if kind != marks.FRONT or layout.has_heading(index + 1) else ""
                section += 1
            elif within and layout.ends(within, index):
                within = ""
            if within or kind:
                self._strip(block, within or kind)
                section += kind == marks.HEADING
            else:
                self.prose.append((section, block))

    def _strip(self, block: Block, reason: str) -> None:
        self.pieces.append(Piece(block.line, block.text, reason))

    def clean(self, block: Block) -> Block:
        """`block` without the marks of emphasis and the markers of footnotes, which are noted."""
        lines = []
        for number, line in enumerate(block.lines, block.line):
            for match in marks.INLINE_MARKERS.finditer(line):
                self.pieces.append(Piece(number, match.group().strip(), marks.MARKER))
            lines.append(marks.INLINE_MARKERS.sub("", line))
        text = marks.EMPHASIS.sub(r"\1", "\n".join(lines))
        return Block(block.line, tuple(text.split("\n")), block.after_cut)


def _is_page(line: str, *, alone: bool) -> bool:
    """A page number by itself; within a block only figures are one: "I" and "mix" are words."""
    if not marks.PAGE_LINE.fullmatch(line):
        return False
    if any(letter.isdigit() for letter in line):
        return True
    return alone and not marks.ROMAN_LINE.fullmatch(line)


def _running_heads(blocks: Sequence[Block]) -> Callable[[str], bool]:
    """Tells lines that recur at the top of pages, with their page number or alone."""

    def key(line: str) -> str:
        return " ".join(marks.PAGE_FIGURES.sub(" ", line.lower()).split())

    seen: Counter[str] = Counter()
    for block in blocks:
        for line in block.lines:
            if len(line.split()) <= 10 and (
                len(block.lines) == 1 or marks.NUMBERED_PAGE.search(line)
            ):
                seen[key(line)] += 1

    def is_head(line: str) -> bool:
        if len(line.split()) > 10 or line.rstrip()[-1] in ".!?'\",;" or marks.NUMBERED.match(line):
            return False
        name = key(line)
        return seen[name] >= 3 and any(map(str.isalpha, name))

    return is_head


class _Layout:
    """The blocks with what each is by itself, before what surrounds it is considered."""

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks
        widths = sorted(len(line) for block in blocks for line in block.lines)
        self.width = widths[int(len(widths) * 0.9)] if widths else 0
        self.kinds = [self._kind(block) for block in blocks]
        numbered = (n for n, block in enumerate(blocks) if marks.NUMBERED.fullmatch(block.text))
        self.numbered = set(numbered)
        self._mark_epigraphs()
        headings = (index for index, kind in enumerate(self.kinds) if kind == marks.HEADING)
        self._last_heading = max(headings, default=-1)
        self._last_numbered = max(self.numbered, default=-1)
        self._titles: dict[str, int] | None = None

    def _kind(self, block: Block) -> str:
        """The reason to strip a block; "" for prose."""
        text = " ".join(block.text.split())
        if marks.ORNAMENT_LINE.fullmatch(text):
            return marks.ORNAMENT
        if marks.LOOSE_NOTE.match(text):
            return marks.NOTE
        if marks.is_printers(text):
            return marks.LICENCE
        if len(block.lines) <= 4 and marks.is_heading(text):
            named = (reason for title, reason in marks.TITLES if title.fullmatch(text))
            return next(named, marks.HEADING)
        if marks.is_contents(block.lines):
            return marks.CONTENTS
        return marks.VERSE if marks.is_verse(block.lines, self.width) else ""

    def _mark_epigraphs(self) -> None:
        """A quotation under a heading ends with a line that names its author."""
        open_kinds = ("", marks.VERSE)
        for index, block in enumerate(self.blocks):
            if len(block.lines[-1].split()) > 16 or not marks.ATTRIBUTION.fullmatch(
                block.lines[-1]
            ):
                continue
            first = index
            while first and index - first < 3 and self.kinds[first - 1] in open_kinds:
                if len(block.lines) > 1:  # the quotation stands in the same block
                    break
                first -= 1
            if first == 0 or self.kinds[first - 1] not in open_kinds:
                self.kinds[first : index + 1] = [marks.EPIGRAPH] * (index + 1 - first)

    def has_heading(self, index: int) -> bool:
        """Whether a heading follows from block `index` on."""
        return self._last_heading >= index

    def ends(self, within: str, index: int) -> bool:
        """Whether block `index` is the tale again, after a preface or a table of contents."""
        kind = self.kinds[index]
        if within == marks.CONTENTS:
            return not kind or (kind == marks.HEADING and self._is_repeated(index))
        # Any heading will do where none to come is numbered.
        numbered = index in self.numbered or index > self._last_numbered
        return kind == marks.HEADING and numbered

    def _is_repeated(self, index: int) -> bool:
        """Whether this heading was already read, as a line of the table of contents."""
        if self._titles is None:
            self._titles = {}
            for number, block in enumerate(self.blocks):
                for line in block.lines:
                    self._titles.setdefault(_title(line), number)
        title = _title(self.blocks[index].text)
        return bool(title) and self._titles.get(title, index) < index


def _title(line: str) -> str:
    """A heading's words alone, as a table of contents would repeat them."""
    return " ".join(re.sub(r"[\W\d_]+", " ", line).lower().split())
