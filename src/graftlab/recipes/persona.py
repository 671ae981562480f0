"""Persona many-to-one: several plain inputs for one styled output, which stays as it is.

chunk ──▶ teacher ──▶ neutral   ┐
                      dropout   ├─ in the persona's frame ──▶ chat, the chunk as its answer
                      abstract  ┘
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from graftlab.errors import ConfigError, require_choice
from graftlab.recipes.pieces import PIECE
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.refusals import refusal_in
from graftlab.recipes.teachers.base import VARIATIONS, Miss, Teacher, TeacherSpec, load_frames
from graftlab.recipes.teachers.rules import RulesTeacher
from graftlab.types import Conversation, Message

BATCH = 32
"""Texts a teacher gets at a time: enough to keep an endpoint busy, few enough to hold."""

NOT_TEXT = "not plain text"
NOTHING = "no variation could be made"
REFUSED = "the teacher refused"


def default_frames() -> dict[str, str]:
    """The shipped persona frame of each variation."""
    return {name: f"systems-theologian-{name}" for name in VARIATIONS}


@dataclass(kw_only=True, slots=True)
class Persona:
    """`persona=systems-theologian`: takes text records to chat records, one per variation."""

    variations: list[str] = field(default_factory=lambda: list(VARIATIONS))
    """Which inputs are made of each text: neutral, dropout, abstract."""
    frames: dict[str, str] = field(default_factory=default_frames)
    """Variation -> frame of its chats (a YAML file, or the name of a shipped one)."""
    teacher: TeacherSpec | None = None
    """Who makes the inputs; null is teacher=rules."""

    def __post_init__(self) -> None:
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
        """Raise ConfigError unless frames and teacher can be had; asks the teacher nothing."""
        load_frames("persona.frames", self.frames)
        self.chosen_teacher().check()

    def chosen_teacher(self) -> TeacherSpec:
        """Who makes the inputs."""
        return self.teacher or RulesTeacher()

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """Chats whose answers are the texts. Raises ConfigError or TeacherError."""
        return self.taught_by(self.chosen_teacher().build()).apply(records, drop)

    def taught_by(self, teacher: Teacher) -> Pairs:
        """The step with `teacher` in place of its own. Raises ConfigError for a broken frame."""
        return Pairs(self, teacher)


class Pairs:
    """The persona step with its teacher at hand."""

    def __init__(self, persona: Persona, teacher: Teacher) -> None:
        self.parameters, self.variations, self.teacher = persona, persona.variations, teacher
        self.frames = load_frames("persona.frames", persona.frames)

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        texts = self._texts(records, drop)
        while batch := list(islice(texts, BATCH)):
            bodies = [str(record.body["text"]) for record in batch]
            inputs = {name: self.teacher.rewrite(bodies, name) for name in self.variations}
            for index, record in enumerate(batch):
                made = {name: _checked(found[index]) for name, found in inputs.items()}
                yield from self._chats(record, made, drop)

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
            asked = Conversation((Message("user", found),))
            turns = [turn.as_dict() for turn in self.frames[name].apply(asked).messages]
            answer = {"role": "assistant", "content": str(record.body["text"])}
            yield replace(record, kind="chat", body={"messages": [*turns, answer]}, labels=labels)


def _checked(found: str | Miss) -> str | Miss:
    """A rewrite that is none: a teacher which talks about itself."""
    if isinstance(found, str) and (said := refusal_in(found)):
        return Miss(REFUSED, said)
    return found
