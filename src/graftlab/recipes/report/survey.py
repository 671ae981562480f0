"""One look at every row of the result, and a second at a sample of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.recipes.report.language import BEYOND_ASCII, guess
from graftlab.recipes.report.losses import Twin, clipped
from graftlab.recipes.report.phrases import Phrases
from graftlab.recipes.report.row_sampling import Line, Lowest, Spot, lines, read_at, turns_in
from graftlab.recipes.report.signs import Span, signs_in

SAMPLE = 20_000
SHOWN = 10
"""Random rows of each source."""
EXAMPLES = 5
SPEAKERS = 3
AROUND = 60
"""Characters shown on both sides of a sign."""


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
        return math.ceil(self.bytes / 4)

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


@dataclass(frozen=True, slots=True)
class Speaker:
    """A row that seems to be in some language."""

    place: str
    source: str
    beginning: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A row to be read by people."""

    place: str
    labels: dict[str, str]
    turns: list[tuple[str, str]]


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
    phrases: Phrases = field(default_factory=Phrases)
    languages: dict[str, Counter[str]] = field(default_factory=dict)
    """Language of the answers -> source -> rows of the sample; a guess."""
    speakers: dict[str, Lowest[Speaker]] = field(default_factory=dict)
    """Language -> a few rows of the sample that seem to be in it."""

    @classmethod
    def of(cls, folder: Path, sides: Sequence[str], *, seed: int, twins: Sequence[Twin]) -> Survey:
        """Read every `SIDE.jsonl` once, and then the rows of the sample again.

        Twins are told about every row, so that they may find the one they are like.
        """
        survey = cls()
        paths = {side: folder / f"{side}.jsonl" for side in sides}
        sample: Lowest[tuple[str, Spot]] = Lowest(SAMPLE)
        for side, path in paths.items():
            for line in lines(path, seed=seed):
                survey._add(line, twins)
                sample.offer(line.lot, _spot, side, line)
        drawn = sample.drawn()
        for side, path in paths.items():
            for line in read_at(path, (spot for name, spot in drawn if name == side)):
                survey._study(line)
        return survey

    def _add(self, line: Line, twins: Sequence[Twin]) -> None:
        body, source, _ = taken_apart(line.row)
        self.rows[source] += 1
        turns = list(turns_in(body))
        self._measure(source, turns)
        text = "\n".join(said for _, said in turns)
        for run in () if text.isascii() else BEYOND_ASCII.findall(text):
            self.characters.update(run)
        for sign, span in signs_in(text):
            sightings = self.signs.setdefault(sign.name, Sightings())
            sightings.sources[source] += 1
            sightings.examples.offer(line.lot, _sighting, line, text, span)
        for twin in twins:
            twin.meet(body, line.place, length=len(text), text=text)
        self.shown.setdefault(source, Lowest(SHOWN)).offer(line.lot, _shown, line)

    def _measure(self, source: str, turns: Iterable[tuple[str, str]]) -> None:
        words: Counter[str] = Counter()
        lengths = self.lengths.setdefault(source, {})
        for part, text in turns:
            words[part] += len(text.split())
            size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
            lengths.setdefault(part, Lengths()).bytes += size
        for part, count in words.items():
            lengths[part].words[count] += 1

    def _study(self, line: Line) -> None:
        """What takes too long for every row."""
        body, source, _ = taken_apart(line.row)
        said: dict[str, list[str]] = {}
        for part, text in turns_in(body):
            said.setdefault(part, []).append(text)
        self.phrases.add(said)
        answers = said.get("assistant") or [text for texts in said.values() for text in texts]
        text = "\n".join(answers)
        language = guess(text)
        self.languages.setdefault(language, Counter())[source] += 1
        heard = self.speakers.setdefault(language, Lowest(SPEAKERS))
        heard.offer(line.lot, Speaker, line.place, source, text[: 2 * AROUND])


def taken_apart(row: dict[str, Any]) -> tuple[dict[str, Any], str, dict[str, str]]:
    """(body, source, labels) of a row as `prepare` writes it."""
    body = {key: value for key, value in row.items() if key not in ("source", "labels")}
    return body, row["source"], row.get("labels", {})


def _spot(side: str, line: Line) -> tuple[str, Spot]:
    return side, Spot.of(line)


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
    body, _, labels = taken_apart(line.row)
    return Shown(line.place, labels, clipped(body))


def merged(lengths: dict[str, dict[str, Lengths]]) -> Iterator[tuple[str, Lengths]]:
    """(part, words) over all sources."""
    together: dict[str, Lengths] = {}
    for parts in lengths.values():
        for part, found in parts.items():
            whole = together.setdefault(part, Lengths())
            whole.words.update(found.words)
            whole.bytes += found.bytes
    yield from together.items()
