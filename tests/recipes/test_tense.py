"""The present tense: each verb as its subject wants, a sentence throughout or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graftlab.recipes.participles import with_past_forms
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.subjects import is_several
from graftlab.recipes.tagging import tag_sentence, written
from graftlab.recipes.tense import present

PROSE = [Path(__file__).with_name(name) for name in ("essay.txt", "letter.txt")]


def told(text: str) -> str:
    return written(present(tag_sentence(text)))


@pytest.mark.parametrize(
    ("past", "now"),
    [
        ("The smell of the hills spread slowly.", "The smell of the hills spreads slowly."),
        ("All of the hills shook at night.", "All of the hills shake at night."),
        ("Most of the snow melted there.", "Most of the snow melts there."),
        ("One of the many sheds had burned.", "One of the many sheds has burned."),
        ("By this time two policemen had arrived.", "By this time two policemen have arrived."),
        ("The dog and the cat slept there.", "The dog and the cat sleep there."),
        ("The limbs, save for their fur, shook.", "The limbs, save for their fur, shake."),
        ("The doctor, though, watched the birds.", "The doctor, though, watches the birds."),
        ("He rose, took his hat, and left.", "He rises, takes his hat, and leaves."),
        ("He saw that they slept, and went home.", "He sees that they sleep, and goes home."),
        ("There came some strange cries from it.", "There come some strange cries from it."),
        ("Nor did they come again.", "Nor do they come again."),
        ("Those who took it heard nothing.", "Those who take it hear nothing."),
        ("The birds piped.", "The birds pipe."),
        ("Neither of the men who lived there spoke.", "Neither of the men who live there speaks."),
        ("The frost let go.", "The frost lets go."),
        ("In time callers heard the noise.", "In time callers hear the noise."),
        ("As the men passed the house they shook.", "As the men pass the house they shake."),
        ("Something hideous had happened.", "Something hideous has happened."),
        ("He knew that the road would be closed.", "He knows that the road will be closed."),
    ],
)
def test_each_verb_is_told_as_its_subject_wants(past: str, now: str) -> None:
    assert told(past) == now


@pytest.mark.parametrize(
    "text",
    [
        "They were once the homes of a tribe.",
        "They waited two hours ago.",
        "The coach put me down last night.",
        "The tales that came from Salem are silly.",
        "He would have fallen if the rope had not held.",
        "I write from the inn where we slept.",
        "He used to walk there.",
    ],
)
def test_what_has_no_present_stays(text: str) -> None:
    assert told(text) == text


@pytest.mark.parametrize(
    ("past", "now"),
    [
        (
            "The figures seen there were small.",
            "The figures seen there are small.",
        ),
        (
            "The deposits found within these circles proved old.",
            "The deposits found within these circles prove old.",
        ),
        (
            "Two of them had seized and steadied him.",
            "Two of them have seized and steadied him.",
        ),
        (
            "Before the gulls were awake the old clerk unlocked its door.",
            "Before the gulls are awake the old clerk unlocks its door.",
        ),
        (
            "The men who stood there with their sacks believed him.",
            "The men who stand there with their sacks believe him.",
        ),
    ],
)
def test_participles_are_told_from_past_forms(past: str, now: str) -> None:
    assert told(past) == now


def test_what_was_said_keeps_its_time() -> None:
    said = told('"I knew him well," said Armitage, and he turned to the door.')
    assert said == '"I knew him well," says Armitage, and he turns to the door.'


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_a_sentence_is_told_throughout_or_not_at_all(path: Path) -> None:
    changed = stayed = 0
    for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
        for sentence in sentences_of(paragraph):
            before = with_past_forms(tag_sentence(sentence))
            past = [i for i, word in enumerate(before) if word.tag in ("VVD", "VBD", "VHD", "VDD")]
            after = present(before)
            same = [before[i] == after[i] for i in past if "if" not in sentence]
            assert len(set(same)) < 2, sentence
            changed += bool(same) and not same[0]
            stayed += bool(same) and same[0]
    assert changed >= 3
    assert stayed >= 1


def test_one_and_several_are_told_apart_or_left_open() -> None:
    words = tag_sentence("Dust and the smell of mould and of the sea there was and rose.")
    assert all(
        is_several(words, index) in (True, False, None)
        for index, word in enumerate(words)
        if word.is_finite
    )
    doubtful = tag_sentence("The road of the men and of the dog with a bell, the priest, went.")
    verb = next(index for index, word in enumerate(doubtful) if word.low == "went")
    assert is_several(doubtful, verb) is None
    assert re.search("went", written(present(doubtful)))
