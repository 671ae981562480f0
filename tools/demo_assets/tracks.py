"""Made-up music tracks: their facts, and the ways a user may write those facts down."""

from __future__ import annotations

import json
from dataclasses import dataclass

from demo_assets import names
from demo_assets.grammar import Pen
from demo_assets.lexicon import WORDS

KEYS = tuple(
    f"{note} {mode}"
    for note in ("C", "D", "E", "F", "G", "A", "B", "B flat", "E flat", "A flat", "F sharp")
    for mode in ("major", "minor")
)


@dataclass(frozen=True, slots=True)
class Track:
    """The facts of one track; `tempo` in beats per minute, `length` as minutes:seconds."""

    title: str
    artist: str
    album: str
    year: int
    genre: str
    tempo: int
    key: str
    moods: tuple[str, ...]
    instruments: tuple[str, ...]
    length: str
    listening: str

    def fields(self) -> dict[str, str]:
        """The facts as the user's labels and values, in their usual order."""
        return {
            "Title": self.title, "Artist": self.artist, "Album": self.album,
            "Year": str(self.year), "Genre": self.genre, "Tempo": f"{self.tempo} BPM",
            "Key": self.key, "Mood": ", ".join(self.moods),
            "Instruments": ", ".join(self.instruments), "Length": self.length,
            "Listening": self.listening,
        }  # fmt: skip


def track(pen: Pen) -> Track:
    """Draw a track; slow moods do not rule out fast tempi, as in life."""
    return Track(
        title=names.title(pen),
        artist=names.artist(pen),
        album=names.title(pen),
        year=pen.number(1952, 2024),
        genre=pen.pick(WORDS["genre"]),
        tempo=pen.number(52, 176),
        key=pen.pick(KEYS),
        moods=tuple(pen.some(WORDS["mood"], pen.number(1, 2))),
        instruments=tuple(pen.some(WORDS["instrument"], pen.number(2, 3))),
        length=f"{pen.number(2, 8)}:{pen.number(0, 59):02d}",
        listening=pen.pick(WORDS["listening"]),
    )


def pace(tempo: int) -> str:
    """The tempo in one word."""
    for limit, name in ((70, "very slow"), (95, "slow"), (120, "moderate"), (145, "fast")):
        if tempo < limit:
            return name
    return "very fast"


def lay_out(pen: Pen, fields: dict[str, str]) -> str:
    """Write fields down as one of the structured forms users send."""
    form = pen.pick(("lines", "lines", "list", "pairs", "json"))
    if form == "json":
        return json.dumps({label.lower(): value for label, value in fields.items()})
    if form == "pairs":
        return "; ".join(f"{label.lower()}: {value}" for label, value in fields.items())
    mark = "- " if form == "list" else ""
    return "\n".join(f"{mark}{label}: {value}" for label, value in fields.items())


def some_fields(pen: Pen, track: Track, *, dropped: int, kept: tuple[str, ...]) -> dict[str, str]:
    """The track's fields without `dropped` of those that are not in `kept`."""
    fields = track.fields()
    for label in pen.some([label for label in fields if label not in kept], dropped):
        del fields[label]
    return fields
