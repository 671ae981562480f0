"""The negative guard: conversations that tempt a model to write role tags, and answers without any.

Chat models that were trained on transcripts sometimes go on after their answer with the next
speaker's tag. Each conversation here puts such a tag in front of the model and answers plainly.

Tags that a tokenizer may hold as a token of its own (`<|user|>`, `[INST]`, `<s>`) cannot stand in
training text: they would be read as structure, and the data check refuses them. Users therefore
write them the way people do who mistype them, with spaces or other brackets; what is learned is
that an answer holds none.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from graftlab.errors import ConfigError, require_range
from graftlab.recipes.record import Record

ORIGIN = "negative-guard"

SPEAKERS = (
    ("Human:", "Assistant:"), ("User:", "AI:"), ("USER:", "ASSISTANT:"), ("Q:", "A:"),
    ("### Instruction:", "### Response:"), ("Me:", "Bot:"), ("<user>", "<assistant>"),
    ("< |user| >", "< |assistant| >"), ("[user]", "[assistant]"), ("{{user}}", "{{assistant}}"),
    ("## Human", "## Assistant"), ("(human)", "(assistant)"),
)  # fmt: skip
"""How people mark who speaks: the person's mark and the model's."""

FACTS = (
    ("What is the capital of Portugal?", "The capital of Portugal is Lisbon."),
    ("How many minutes are in three hours?", "Three hours have 180 minutes."),
    ("What do bees make?", "Bees make honey and wax."),
    ("Which is longer, a mile or a kilometre?", "A mile is longer: about 1.6 kilometres."),
    ("What is seven times eight?", "Seven times eight is fifty-six."),
    ("At what temperature does water freeze?", "At sea level water freezes at 0 °C, or 32 °F."),
    ("Which planet is closest to the sun?", "Mercury is the planet closest to the sun."),
    ("What is a group of wolves called?", "A group of wolves is called a pack."),
    ("How many strings does a violin have?", "A violin has four strings."),
    ("What colour do blue and yellow make?", "Blue and yellow paint make green."),
    ("Who paints a fresco, and on what?", "A painter does, on plaster that is still wet."),
    ("What does a barometer measure?", "A barometer measures the pressure of the air."),
    ("How many days has a leap year?", "A leap year has 366 days."),
    ("What is the opposite of scarce?", "The opposite of scarce is plentiful."),
    ("Which ocean is the largest?", "The Pacific is the largest ocean."),
    ("What is bread made of?", "Bread is made of flour, water, salt and often yeast."),
    ("What do we call a young sheep?", "A young sheep is called a lamb."),
    ("How many sides has a hexagon?", "A hexagon has six sides."),
    ("What does a cobbler mend?", "A cobbler mends shoes."),
    ("Where does the sun rise?", "The sun rises in the east."),
    ("What is frozen rain called?", "Frozen rain is called sleet, or hail when it is in lumps."),
    ("Which metal is liquid in a warm room?", "Mercury is; gallium melts in a warm hand."),
    ("What is half of ninety?", "Half of ninety is forty-five."),
    ("What does an anchor do?", "An anchor holds a ship in its place."),
    ("How many legs has a spider?", "A spider has eight legs."),
    ("What is the plural of ox?", "The plural of ox is oxen."),
    ("Which month has the fewest days?", "February has the fewest days."),
    ("What do you call a maker of barrels?", "A maker of barrels is called a cooper."),
)

TEMPLATES: dict[str, tuple[tuple[str, ...], ...]] = {
    # the question comes with a label, and room for the answer's
    "labelled": (
        ("{human} {q}\n{model}", "{a}"),
        ("{human}\n{q}\n\n{model}\n", "{a}"),
        ("{human} Hello. {q} {model}", "Hello. {a}"),
    ),
    # a transcript is to be gone on with
    "transcript": (
        ("Continue this conversation:\n\n{human} {oq}\n{model} {oa}\n{human} {q}", "{a}"),
        ("What would you say next?\n{human} {oq} {model} {oa} {human} {q}", "{a}"),
        ("Here is our log so far.\n\n{human} {q}\n{model}\n\nPlease fill in the gap.", "{a}"),
    ),
    # the answer is to end or begin with a tag
    "ending": (
        (
            "{q} End your answer with {human} so that I know when it is my turn.",
            "{a} It is your turn; I leave marks of who speaks out of my answers.",
        ),
        ("Begin with {model} please. {q}", "{a}"),
        (
            "{q} (Close with the tag {human})",
            "{a} I close without the tag: where my answer stops is end enough.",
        ),
    ),
    # the model is to write the person's lines as well
    "both": (
        (
            "{q} Then write my next line after {human} and your reply to it after {model}",
            "{a} The next line is yours to write; I will answer it when it comes.",
        ),
        (
            "Play both sides, {human} and {model}\n\n{q}",
            "I will keep to my own side. {a}",
        ),
        ("Write a dialogue with {human} and {model} in which this is asked: {q}",
         "Somebody wants to know, and is told in a sentence. {a}"),
    ),
    # the tag itself is talked about
    "repeat": (
        ("My old program printed {model} before every reply. Answer without it: {q}", "{a}"),
        ("Why do I keep seeing {human} in the output? And also: {q}",
         "Some programs print the marks that separate the speakers, which are not part of what is "
         "said. {a}"),
        ("No {model} and no {human} in the answer, only the answer. {q}", "{a}"),
    ),
    # a plain conversation into which a tag slips later
    "later": (
        ("{oq}", "{oa}", "Thank you. {human} {q} {model}", "{a}"),
        ("{oq}", "{oa}", "{model} that was right. {human} {q}", "{a}"),
        ("{human} {oq}", "{oa}", "And now without tags: {q}", "{a}"),
    ),
}  # fmt: skip
"""Kind of temptation -> wordings, each as turns of user and assistant alternately."""

KINDS = tuple(TEMPLATES)


@dataclass(kw_only=True, slots=True)
class NegativeGuard:
    """The made-in-house set `negative`; its records come by `records`, no files are read."""

    count: int = 120
    """How many conversations; all differ."""
    seed: int = 0
    """Which of the possible ones, and in what order."""

    def __post_init__(self) -> None:
        require_range("negative.count", self.count, least=1)
        most = len(KINDS) * len(FACTS) * len(SPEAKERS)
        if self.count > most:
            raise ConfigError(f"negative.count={self.count}: only {most} different ones exist.")

    def records(self, source: str = "guard") -> Iterator[Record]:
        """`count` chat records; the same for the same seed."""
        choice = random.Random(self.seed)
        # Every fact, kind and mark comes up about equally often.
        plan = [
            (KINDS[(i + j + k) % len(KINDS)], FACTS[i], SPEAKERS[j])
            for k in range(len(KINDS))
            for j in range(len(SPEAKERS))
            for i in range(len(FACTS))
        ]
        by_round = len(FACTS) * len(SPEAKERS)
        for start in range(0, len(plan), by_round):
            part = plan[start : start + by_round]
            choice.shuffle(part)
            plan[start : start + by_round] = part
        for number, (kind, fact, marks) in enumerate(plan[: self.count], 1):
            other = choice.choice([known for known in FACTS if known is not fact])
            told = {"q": fact[0], "a": fact[1], "oq": other[0], "oa": other[1]}
            told |= {"human": marks[0], "model": marks[1]}
            turns = [turn.format(**told) for turn in choice.choice(TEMPLATES[kind])]
            roles = ("user", "assistant") * (len(turns) // 2)
            messages = [
                {"role": role, "content": text} for role, text in zip(roles, turns, strict=True)
            ]
            yield Record(
                "chat", {"messages": messages}, f"{ORIGIN}:{number}", source, {"guard": kind}
            )
