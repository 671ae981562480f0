"""Small exercises with one right answer: lists, sums, order, repetition."""

from __future__ import annotations

from demo_assets.grammar import Pen, listing, plural
from demo_assets.lexicon import WORDS


def small_tasks(pen: Pen) -> tuple[str, str]:
    """Lists, sums, order, repetition: tasks with one right answer."""
    group = pen.pick(
        ("animal", "fruit", "colour", "tool", "instrument", "job", "vegetable", "plant")
    )
    words, (a, b) = pen.some(WORDS[group], pen.number(3, 5)), (pen.number(2, 40), pen.number(2, 40))
    sentence = pen.write("the {object} in the {room} is {colour}.")
    count = ("zero", "one", "two", "three", "four", "five")[len(words)]
    about = (
        "The door is {w}."
        if group == "colour"
        else ("[I can see {a w}.|the {w} is near the {place}.|my {relation} likes the {w}.]")
    )
    series, listed = ", ".join(words), listing(words)
    bullets = "\n".join(f"- {word}" for word in words)
    return pen.pick((
        (f"Name {count} {plural(group)}.", f"{count.capitalize()} {plural(group)} are {listed}."),
        (f"List {count} {plural(group)}.", bullets),
        (f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."),
        (f"Which number is larger, {a} or {b + 41}?", f"{b + 41} is larger than {a}."),
        (f"Put these words in order: {series}.", f"{listing(sorted(words))}."),
        (f"Repeat this sentence: {sentence}", sentence),
        (f"Which is the first word: {series}?", f"The first word is {words[0]}."),
        (f"Which is the last word: {series}?", f"The last word is {words[-1]}."),
        (f"Make a list: {listed}.", bullets),
        (f"Write a sentence with the word {words[0]}.", pen.write(about, w=words[0])),
    ))  # fmt: skip
