"""Persona many-to-one: several inputs for one styled output, which stays as it is.

chunk ──▶ a rewriter       ──▶ neutral   ┐
      ──▶ parts of speech  ──▶ dropout   ├─ in the persona's frame ──▶ chat, the chunk its answer
                           ──▶ abstract  ┘
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from graftlab.errors import ConfigError, did_you_mean, require_choice, require_range
from graftlab.recipes.outline import outline
from graftlab.recipes.record import PIECE, Drop, Record
from graftlab.recipes.refusals import refusal_in
from graftlab.recipes.rewriters.base import Miss, Rewrite, asked
from graftlab.recipes.tagging import require_tagger
from graftlab.recipes.words import words_of
from graftlab.text.frame import Frame, load_frame

NEUTRAL = "neutral"
"""The variation that a rewriter makes; the others need none."""
VARIATIONS = (NEUTRAL, "dropout", "abstract")
"""The inputs that each styled text may get."""
BATCH = 32
"""Texts a rewriter gets at a time: enough to keep an endpoint busy, few enough to hold."""

NOT_TEXT = "not plain text"
NOTHING = "no variation could be made"
REFUSED = "the rewriter refused"
OFF_TOPIC = "not about the text"
NO_NOUN = "no noun or verb"

_LONG, _FEWEST, _LEAST = 5, 20, 0.05
"""A rewrite holds so small a share at least of its text's words of so many letters, if those are so
many; a small model may talk about its task instead."""


def default_frames() -> dict[str, str]:
    """The shipped persona frame of each variation."""
    return {name: f"systems-theologian-{name}" for name in VARIATIONS}


@dataclass(kw_only=True, slots=True)
class Persona:
    """`persona=systems-theologian`: takes text records to chat records, one per variation."""

    variations: list[str] = field(default_factory=lambda: list(VARIATIONS))
    """Which inputs are made of each text: neutral (by a rewriter), dropout, abstract."""
    frames: dict[str, str] = field(default_factory=default_frames)
    """Variation -> frame of its chats (a YAML file, or the name of a shipped one)."""
    aggression: float = 0.0
    """Share of its nouns and verbs that dropout and abstract leave out of a sentence, 0 to 1."""

    def __post_init__(self) -> None:
        require_range("persona.aggression", self.aggression, least=0, most=1)
        if not self.variations or len(set(self.variations)) < len(self.variations):
            raise ConfigError(
                f"persona.variations={self.variations} must name each of {', '.join(VARIATIONS)} "
                "at most once, and at least one."
            )
        for name in self.variations:
            require_choice("persona.variations", name, VARIATIONS)
            if name not in self.frames:
                raise ConfigError(f"persona.frames.{name} is missing: name its frame.")

    def check(self) -> None:
        """Raise ConfigError unless frames and tagger can be had."""
        self.loaded_frames()
        if set(self.variations) != {NEUTRAL}:
            require_tagger()

    def loaded_frames(self) -> dict[str, Frame]:
        """Variation -> its frame. Raises ConfigError for an unknown variation or a broken frame."""
        frames = {}
        for name, frame in self.frames.items():
            if name not in VARIATIONS:
                known, hint = ", ".join(VARIATIONS), did_you_mean(name, VARIATIONS)
                raise ConfigError(f"persona.frames.{name}: variations are {known}.{hint}")
            try:
                frames[name] = load_frame(frame)
            except ConfigError as error:
                raise ConfigError(f"persona.frames.{name}: {error}") from None
        return frames

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """Chats whose answers are the texts, without neutral ones. Raises ConfigError."""
        return self.with_rewriter(None).apply(records, drop)

    def with_rewriter(self, rewrite: Rewrite | None) -> Pairs:
        """The step with neutral inputs, too, unless `rewrite` is None.

        Raises ConfigError for a broken frame, and where no variation is left.
        """
        return Pairs(self, rewrite)


class Pairs:
    """The persona step with its frames read and its rewriter at hand."""

    def __init__(self, persona: Persona, rewrite: Rewrite | None) -> None:
        self.parameters, self.rewrite = persona, rewrite
        self.variations = [n for n in persona.variations if n != NEUTRAL or rewrite is not None]
        self.frames = persona.loaded_frames()
        if not self.variations:
            raise ConfigError(
                "persona.variations=[neutral] needs a rewriter: rewriter=http or rewriter=local."
            )

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """Chats whose answers are the texts. Raises ConfigError or RewriterError."""
        texts = self._texts(records, drop)
        while batch := list(islice(texts, BATCH)):
            bodies = [str(record.body["text"]) for record in batch]
            inputs = {name: self._inputs(bodies, name) for name in self.variations}
            for index, record in enumerate(batch):
                made = {name: found[index] for name, found in inputs.items()}
                yield from self._chats(record, made, drop)

    def _inputs(self, texts: Sequence[str], variation: str) -> list[str | Miss]:
        """One input or Miss for each text."""
        if variation == NEUTRAL:
            assert self.rewrite is not None, "left out without a rewriter"
            return [_checked(t, r) for t, r in zip(texts, self.rewrite(texts), strict=True)]
        return [
            outline(text, aggression=self.parameters.aggression, abstract=variation == "abstract")
            or Miss(NO_NOUN)
            for text in texts
        ]

    @staticmethod
    def _texts(records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        for record in records:
            text = record.body.get("text")
            if record.kind == "text" and isinstance(text, str) and text.strip():
                yield record
            else:
                drop(record, NOT_TEXT, f"a {record.kind} record; persona takes texts")

    def _chats(self, record: Record, made: dict[str, str | Miss], drop: Drop) -> Iterator[Record]:
        misses = {name: found for name, found in made.items() if isinstance(found, Miss)}
        if len(misses) == len(made):
            said = "; ".join(
                f"{name}: {miss.reason} {miss.detail}" for name, miss in misses.items()
            )
            drop(record, NOTHING, said)
            return
        for name, found in made.items():
            labels = {**record.labels, "variation": name}
            if isinstance(found, Miss):
                part = replace(record, labels={**labels, PIECE: name})
                drop(part, found.reason, f"{name}: {found.detail}".strip(": "))
                continue
            turns = [turn.as_dict() for turn in asked(self.frames[name], found).messages]
            answer = {"role": "assistant", "content": str(record.body["text"])}
            yield replace(record, kind="chat", body={"messages": [*turns, answer]}, labels=labels)


def _checked(text: str, found: str | Miss) -> str | Miss:
    """`found`, unless it is no rewrite: a model that talks about itself, or about its task."""
    if isinstance(found, Miss):
        return found
    if said := refusal_in(found):
        return Miss(REFUSED, said)
    words, kept = _long_words(text), _long_words(found)
    share = len(words & kept) / max(1, len(words))
    if len(words) >= _FEWEST and share < _LEAST:
        return Miss(OFF_TOPIC, f"{share:.0%} of its long words: {found[:60]!r}")
    return found


def _long_words(text: str) -> set[str]:
    return {word for word in words_of(text) if len(word) >= _LONG}
