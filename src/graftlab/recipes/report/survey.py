"""A look at every row of the result, and what a sample of them has in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graftlab.recipes.report.phrases import Phrases
from graftlab.recipes.report.row_sampling import Line, Lowest, lines
from graftlab.recipes.report.signs import Span, signs_in
from graftlab.recipes.report.turns import Shown, clipped, turns_in

SAMPLE = 2000
"""Rows that are looked through for what they have in common."""
SHOWN = 10
"""Random rows of each source."""
EXAMPLES = 5
AROUND = 60
"""Characters shown on both sides of a sign."""
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


@dataclass(slots=True)
class Lengths:
    """Words of one part in every row that has it."""

    words: Counter[int] = field(default_factory=Counter)
    """Words of a row -> rows."""
    bytes: int = 0

    @property
    def rows(self) -> int:
        return self.words.total()

    @property
    def total(self) -> int:
        return sum(words * rows for words, rows in self.words.items())

    @property
    def tokens(self) -> int:
        """Estimated as `curate` does: a quarter of the UTF-8 bytes."""
        return -(-self.bytes // 4)

    def quantile(self, share: float) -> int:
        """The least number of words that this share of the rows does not exceed."""
        wanted, passed = share * self.rows, 0
        for words, rows in sorted(self.words.items()):
            passed += rows
            if passed >= wanted:
                return words
        return 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A sign in its surroundings."""

    place: str
    source: str
    before: str
    found: str
    after: str


@dataclass(slots=True)
class Sightings:
    """All rows that show one sign."""

    sources: Counter[str] = field(default_factory=Counter)
    examples: Lowest[Sighting] = field(default_factory=lambda: Lowest(EXAMPLES))


@dataclass(slots=True)
class Survey:
    """What the rows of train, valid and test are like."""

    rows: Counter[str] = field(default_factory=Counter)
    """Source -> rows."""
    lengths: dict[str, dict[str, Lengths]] = field(default_factory=dict)
    """Source -> part -> words."""
    signs: dict[str, Sightings] = field(default_factory=dict)
    """Name of a sign -> rows that show it."""
    characters: Counter[str] = field(default_factory=Counter)
    """Characters beyond ASCII."""
    shown: dict[str, Lowest[Shown]] = field(default_factory=dict)
    """Source -> a few of its rows."""
    phrases: Phrases = field(default_factory=Phrases)
    """Of the sample."""

    @classmethod
    def of(cls, folder: Path, sides: Sequence[str], *, seed: int) -> Survey:
        """Read every `SIDE.jsonl`, once."""
        survey = cls()
        sample: Lowest[list[tuple[str, str]]] = Lowest(SAMPLE)
        for side in sides:
            for line in lines(folder / f"{side}.jsonl", seed=seed):
                turns = list(turns_in(line.row))
                survey._add(line, turns)
                sample.offer(line.lot, list, turns)
        for turns in sample.drawn():
            said: dict[str, list[str]] = {}
            for part, text in turns:
                said.setdefault(part, []).append(text)
            survey.phrases.add(said)
        return survey

    def _add(self, line: Line, turns: Sequence[tuple[str, str]]) -> None:
        source = line.row["source"]
        self.rows[source] += 1
        self._measure(source, turns)
        text = "\n".join(said for _, said in turns)
        for run in _BEYOND_ASCII.findall(text):
            self.characters.update(run)
        for sign, span in signs_in(text):
            sightings = self.signs.setdefault(sign.name, Sightings())
            sightings.sources[source] += 1
            sightings.examples.offer(line.lot, _sighting, line, text, span)
        self.shown.setdefault(source, Lowest(SHOWN)).offer(line.lot, _shown, line)

    def _measure(self, source: str, turns: Iterable[tuple[str, str]]) -> None:
        words: Counter[str] = Counter()
        lengths = self.lengths.setdefault(source, {})
        for part, text in turns:
            words[part] += len(text.split())
            lengths.setdefault(part, Lengths()).bytes += len(text.encode("utf-8", "replace"))
        for part, count in words.items():
            lengths[part].words[count] += 1


def _sighting(line: Line, text: str, span: Span) -> Sighting:
    start, end = span
    return Sighting(
        place=line.place,
        source=line.row["source"],
        before=("…" if start > AROUND else "") + text[max(0, start - AROUND) : start],
        found=text[start : min(end, start + 2 * AROUND)],
        after=text[end : end + AROUND] + ("…" if len(text) > end + AROUND else ""),
    )


def _shown(line: Line) -> Shown:
    labels = ", ".join(f"{name} {value}" for name, value in line.row.get("labels", {}).items())
    return Shown(line.place, (labels,), clipped(line.row))


def merged(lengths: dict[str, dict[str, Lengths]]) -> dict[str, Lengths]:
    """Part -> words, over all sources."""
    together: dict[str, Lengths] = {}
    for parts in lengths.values():
        for part, found in parts.items():
            whole = together.setdefault(part, Lengths())
            whole.words.update(found.words)
            whole.bytes += found.bytes
    return together
