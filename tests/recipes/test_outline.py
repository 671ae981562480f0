"""Outlines: the right words in their order, less with more aggression, and nothing to copy."""

from __future__ import annotations

import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.recipes import tagging
from graftlab.recipes.curate import Curate
from graftlab.recipes.outline import outline
from graftlab.recipes.overlap import longest_run, words_of
from graftlab.recipes.persona import Persona
from graftlab.recipes.tagging import tag_sentence
from recipe_drops import MESSY, run_step, text_record

DOGS = "Old Whateley drove his sleigh through the snow into Dunwich Village, and the dogs barked."


def chunks() -> list[str]:
    out, _ = run_step(Curate(), [text_record(MESSY.read_text(encoding="utf-8"))])
    return [str(record.body["text"]) for record in out]


@pytest.mark.parametrize(
    ("text", "said", "abstract"),
    [
        (
            DOGS,
            "- Whateley, drove, sleigh, snow, Dunwich Village, dogs, barked",
            "- [NAME], drove, [THING], [THING], [NAME], [THINGS], barked",
        ),
        ("The cold wind had not been heard.", "- wind, heard", "- [THING], heard"),
        (
            "They saw it. The gates of Arkham opened slowly!",
            "- saw\n- gates, Arkham, opened",
            "- saw\n- [THINGS], [NAME], opened",
        ),
        ("A ship came.\n\nIt was there.\n\nMen ran.", "- ship, came\n\n- men, ran", None),
        ("Rain fell on Sentinel Hill.", "- rain, fell, Sentinel Hill", "- [THING], fell, [NAME]"),
        ("Only the Fryes did not answer.", "- Fryes, answer", "- [NAME], answer"),
        ("It was he, and she had been so too.", "", ""),
        ("", "", ""),
    ],
)
def test_what_stays_and_in_which_order(text: str, said: str, abstract: str | None) -> None:
    assert outline(text) == said
    if abstract is not None:
        assert outline(text, abstract=True) == abstract


def test_no_small_word_and_no_adjective_stays() -> None:
    whole = "\n\n".join(chunks())
    tags = {
        w.text.lower(): w.tag for s in re.split(r"(?<=[.!?])\s", whole) for w in tag_sentence(s)
    }
    said = re.findall(r"[\w'-]+", outline(whole))
    assert len(said) > 100
    small = {
        word for word, tag in tags.items() if tag in ("AT0", "PRP", "PRF", "CJC", "AV0", "AJ0")
    }
    assert len(small) > 50
    assert {"the", "of", "and", "in"} <= small
    assert not {"the", "of", "and", "in"} & set(said)


def test_an_abstract_holds_no_noun_of_its_text() -> None:
    whole = "\n\n".join(chunks())
    nouns = {w.text.lower() for s in whole.split(". ") for w in tag_sentence(s) if w.is_noun}
    verbs = {w.text.lower() for s in whole.split(". ") for w in tag_sentence(s) if w.is_verb}
    said = outline(whole, abstract=True)
    assert {"[THING]", "[THINGS]"} <= set(re.findall(r"\[\w+\]", said))
    left = set(re.findall(r"[\w'-]+", re.sub(r"\[\w+\]", "", said).lower())) - {"-"}
    assert len(left) > 50
    assert not left & (nouns - verbs)


@pytest.mark.parametrize("abstract", [False, True])
def test_more_aggression_keeps_a_part_of_what_less_keeps(abstract: bool) -> None:
    """Line by line, and in the order of the text."""
    text = "\n\n".join(chunks())
    steps = [0.0, 0.2, 0.5, 0.8, 1.0]
    told = [outline(text, aggression=step, abstract=abstract) for step in steps]
    sizes = [len(said.split(", ")) for said in told]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    for more, less in pairwise(told):
        assert more.count("\n") == less.count("\n")
        for whole, part in zip(more.split("\n"), less.split("\n"), strict=True):
            items = iter(whole.removeprefix("- ").split(", "))
            assert all(item in items for item in part.removeprefix("- ").split(", "))
    assert all(", " not in line for line in told[-1].split("\n"))  # one thing of each sentence


def test_nothing_can_be_copied() -> None:
    """Eight words in a row is what the guard calls a leak."""
    rows, _ = run_step(Persona(), [text_record(text, line=n) for n, text in enumerate(chunks(), 1)])
    assert len(rows) == 4
    for row in rows:
        _, asked, answer = (str(turn["content"]) for turn in row.body["messages"])
        assert longest_run(words_of(asked), words_of(answer)) < 8


@settings(max_examples=60, deadline=None)
@given(
    st.text(alphabet="ab TheDog's.,\n\ud800é[]-", max_size=80), st.floats(min_value=0, max_value=1)
)
def test_any_text_is_taken_and_the_same_every_time(text: str, aggression: float) -> None:
    said = outline(text, aggression=aggression)
    assert said == outline(text, aggression=aggression)
    assert all(line == "" or re.fullmatch(r"- \S.*", line) for line in said.split("\n"))


def test_a_missing_tagger_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "HanTa", None)
    monkeypatch.setattr(tagging, "find_spec", lambda name: None)
    tagging._tagger.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'graftlab\[prepare\]'"):
        outline("The dogs bark.")
    with pytest.raises(ConfigError, match=r"persona\.variations=\[neutral\]"):
        Persona().check()
    Persona(variations=["neutral"]).check()
