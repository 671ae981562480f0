"""The offline teacher: plainer, barer and more abstract text, different enough from the output."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.recipes import tagging
from graftlab.recipes.abstract import replace_nouns
from graftlab.recipes.curate import Curate
from graftlab.recipes.dropout import drop_description
from graftlab.recipes.lexicon import lexicon
from graftlab.recipes.neutral import plain_text
from graftlab.recipes.overlap import longest_run, shared_ngrams, words_of
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.tagging import Word, tag_sentence, written
from graftlab.recipes.teachers.base import VARIATIONS, Miss
from graftlab.recipes.teachers.local import LocalTeacher
from graftlab.recipes.teachers.rules import RulesTeacher
from graftlab.types import Conversation
from recipe_drops import MESSY, run_step, text_record


def chunks() -> list[str]:
    out, _ = run_step(Curate(), [text_record(MESSY.read_text(encoding="utf-8"))])
    return [str(record.body["text"]) for record in out]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            "He beheld the tenebrous abode; and he hastened thither.",
            "He sees the dark house. He runs thither.",
        ),
        (
            "When the rain falls, the old road is flooded.",
            "The old road is flooded when the rain falls.",
        ),
        ("'Twas upon an exceedingly cold morning.", "It is on a cold morning."),
        ("The crude, wooden, narrow bridge stood.", "The narrow bridge stands."),
        (
            "They came to the house, which was quite empty.",
            "They come to the house. It's empty.",
        ),
        ("She cannot discern the hideous apparition.", "She can't see the ugly ghost."),
        ("The dogs of the village barked.", "The village's dogs bark."),
        ("Those who took it heard nothing.", "People who take it hear nothing."),
    ],
)
def test_neutral(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("The crude wooden bridges always seem of dubious safety.", "The bridges seem of safety."),
        ("The dusty, curving road was empty and silent.", "The road is ...."),
        ("He slowly opened a very old door.", "He opens a door."),
        ("She did not come again.", "She does not come."),
        ("They waited two hours ago as quietly as possible.", "They waited two hours ago."),
        ("It stood on Round Mountain.", "It stands on Round Mountain."),
        ("The dead do not say so.", "The dead do not say so."),
        ("Armitage, at Corey's place, shook.", "Armitage, at Corey's place, shakes."),
    ],
)
def test_dropout(text: str, bare: str) -> None:
    assert drop_description(text) == bare


@pytest.mark.parametrize(
    ("text", "abstract"),
    [
        (
            "Old Whateley drove his sleigh through the snow into Dunwich Village.",
            "[PERSON] drove his [THING] through the [THING] into [PLACE].",
        ),
        ("In 1928 the farmer sold an old cow.", "In [TIME] the [PERSON] sold an old [CREATURE]."),
        ("Her sadness filled the house.", "Her [IDEA] filled the [PLACE]."),
        ("An eagle saw the Aylesbury pike.", "A [CREATURE] saw the [PLACE]."),
        ("Mr. Lamb met Martha at Port Orrin.", "[PERSON] met [PERSON] at [PLACE]."),
    ],
)
def test_abstract(text: str, abstract: str) -> None:
    assert replace_nouns(text) == abstract


def test_each_variation_is_what_it_says() -> None:
    for text in chunks():
        neutral, bare, kinds = plain_text(text), drop_description(text), replace_nouns(text)
        described = sum(
            w.is_adjective or w.is_adverb for s in sentences_of(text) for w in tag_sentence(s)
        )
        left = sum(
            w.is_adjective or w.is_adverb for s in sentences_of(bare) for w in tag_sentence(s)
        )
        assert left < 0.25 * described
        assert kinds.count("[") > 0.12 * len(text.split())
        assert all(s.count("\n\n") == text.count("\n\n") for s in (neutral, bare, kinds))
        mean = len(text.split()) / len(sentences_of(text))
        assert len(neutral.split()) / len(sentences_of(neutral.replace("\n\n", " "))) < 0.8 * mean


def test_no_variation_leaks() -> None:
    for text in chunks():
        for name in VARIATIONS:
            (made,) = RulesTeacher().rewrite([text], name)
            assert isinstance(made, str)
            asked, answered = words_of(made), words_of(text)
            assert shared_ngrams(asked, answered, 4) < 0.6, name
            assert longest_run(asked, answered) <= 30, name


def test_the_rules_say_the_same_every_time() -> None:
    for name in VARIATIONS:
        assert RulesTeacher().rewrite(chunks(), name) == RulesTeacher().rewrite(chunks(), name)


@pytest.mark.parametrize(
    ("word", "tag", "lemma", "plain"),
    [
        ("beheld", "VVD", "behold", "saw"),
        ("beheld", "VVN", "behold", "seen"),
        ("Gazing", "VVG", "gaze", "Looking"),
        ("perishes", "VVZ", "perish", "dies"),
        ("awaited", "VVD", "await", "waited for"),
        ("abodes", "NN2", "abode", "houses"),
        ("babes", "NN2", "babe", "children"),
        ("tenebrous", "AJ0", "tenebrous", "dark"),
        ("upon", "PRP", "upon", "on"),
        ("table", "NN1", "table", None),
        ("Upon", "NP0", "upon", None),
    ],
)
def test_plain_words_take_the_form_of_the_ornate(
    word: str, tag: str, lemma: str, plain: str | None
) -> None:
    assert lexicon().plain(Word(word, tag, lemma)) == plain


def test_the_word_lists_are_sound() -> None:
    known = lexicon()
    assert sum(map(len, known.words.values())) > 500
    for pos, words in known.words.items():
        for ornate, plain in words.items():
            assert ornate != plain, pos
            chained = words.get(plain.split()[0]) if plain != "-" else None
            assert chained in (None, plain), f"{ornate} -> {plain} -> {chained}"


@pytest.mark.parametrize(
    "text",
    [
        "Dean's Corners didn't move; 'tis o'er, cannot they see?",
        'He said: "At 5 a.m. on the 2nd, Mr. Lamb--who?--paid 1,204.50 (or so)..."',
        "a  b\tc",
        "[PERSON] met [PLACE]'s well-nigh folks'll...",
    ],
)
def test_tagged_words_are_the_text_again(text: str) -> None:
    assert written(tag_sentence(text)) == text


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=120))
def test_any_text_is_survived(text: str) -> None:
    assert written(tag_sentence(text)) == text.strip()
    for name in VARIATIONS:
        (made,) = RulesTeacher().rewrite([text], name)
        assert isinstance(made, Miss) or made.strip()


def test_sentences_end_where_they_should() -> None:
    text = 'Mr. A. Lamb came at 5 a.m. today. "Who?" he said. It was St. John\'s. And so on...'
    assert sentences_of(text) == [
        "Mr. A. Lamb came at 5 a.m. today.", '"Who?" he said.', "It was St. John's.",
        "And so on...",
    ]  # fmt: skip


def test_without_the_tagger_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tagging._tagger.cache_clear()
    tagging.tag_sentence.cache_clear()
    monkeypatch.setitem(sys.modules, "HanTa", None)
    monkeypatch.setitem(sys.modules, "HanTa.HanoverTagger", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'graftlab[prepare]'")):
        RulesTeacher().build()


def test_a_model_of_ours_is_asked_in_its_frame() -> None:
    asked: list[Conversation] = []

    def generate(conversations: list[Conversation]) -> list[str]:
        asked.extend(conversations)
        return [" Plain. ", "  "]

    taught = LocalTeacher().taught_by(generate)
    assert taught.rewrite(["Styled.", "Other."], "neutral") == ["Plain.", Miss("empty answer")]
    assert asked[0].messages[0].role == "system"
    assert asked[0].messages[1].content.endswith("PASSAGE:\nStyled.")
    with pytest.raises(ConfigError, match="graftlab prepare"):
        LocalTeacher().build()
