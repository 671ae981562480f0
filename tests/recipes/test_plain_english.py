"""What the three variations must never write, by example and over whole passages of prose."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from graftlab.recipes.abstract import replace_nouns
from graftlab.recipes.dropout import drop_description
from graftlab.recipes.everyday import contracted, pairs_turned
from graftlab.recipes.neutral import plain_text
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.tagging import tag_sentence, written

TEXTS = {
    name: Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").strip()
    for name in ("essay", "letter", "messy")
}
RULES = {"neutral": plain_text, "dropout": drop_description, "abstract": replace_nouns}

NEVER = {
    "two articles": r"\b(?:an?|the) (?:an?|the|his|her|its|their)\b",
    "a before a vowel": r"\ba [aio]\w|\ba e(?!u)\w",
    "an before a consonant": r"\ban [bcdfgjklmnpqrstvwxz]",
    "space before a mark": r" [,;:!?]",
    "two marks": r"[,;:]{2,}|,\.(?!\.)",
    "a word twice": r"\b(?!(?:had|that|ha)\b)(\w+) \1\b",
    "an article that nothing follows": r"\b(?:the|an?|its|their) ?[,.;:](?!\.\.)",
    "one who have": r"\b(?:he|she|it) (?:are|have|do|were)\b",
    "several who has": r"\b(?:they|we|you) (?:is|has|was|does)\b",
    "a broken negation": r"cann't|willn't|n't not|n't n't",
    "halves of a comparison": r"\bas as\b|\bso that so\b|\bthan[,.;]",
    "a conjunction at the end": r"\b(?:and|or|but|while|although)[.;]",
}


@pytest.mark.parametrize("text", TEXTS, ids=list(TEXTS))
@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_no_sentence_is_broken(rule: Callable[[str], str], text: str) -> None:
    paragraphs = [p for p in TEXTS[text].split("\n\n") if len(p.split()) >= 60]
    assert paragraphs
    for paragraph in paragraphs:
        for sentence in sentences_of(rule(" ".join(paragraph.split()))):
            for what, pattern in NEVER.items():
                assert not re.search(pattern, sentence, re.I), f"{what}: {sentence}"
            first = next((letter for letter in sentence if letter.isalnum()), "")
            assert not first.islower() or sentence.lstrip("'\"").startswith("..."), sentence


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("No trace of it has yet been found.", "No trace of it has yet been found."),
        ("It can, though, do harm.", "It can, though, do harm."),
        ("These tales, of course, are ridiculous.", "These stories are foolish."),
        ("Of course, she was wrong.", "She's wrong."),
        ("His face, too, was kind.", "His face is kind."),
        ("He saw a hill where no tree, shrub, or blade would grow.",
         "He sees a hill where no tree, shrub, or blade will grow."),
        ("A great snapping, crashing, and crackling ensued.",
         "A big snapping, crashing, and crackling come after."),
        ("The chanting of the men from Arkham grew.", "The chanting of the men from Arkham grows."),
        ("Whatever was there was biding its time.", "Whatever is there is biding its time."),
        ("The night ended less happily.", "The night ends less happily."),
        ("They preferred to stay rather than go down.",
         "They prefer to stay rather than go down."),
        ("Books were sold, the house was let, and the men were sent home.",
         "Books are sold, the house is let, and the men are sent home."),
        ("He slept a little in the chair.", "He sleeps a little in the chair."),
        ("He had left a fearful smell.", "He's left a fearful smell."),
        ("He hoped that the clouds seemed to be leaving.",
         "He hopes the clouds seem to be leaving."),
        ("She found the men whom she sought for years.",
         "She finds the men whom she looks for years."),
        ("It was as though a house, launched by a flood, had slid down.",
         "It is as though a house, launched by a flood, had slid down."),
        ("He was like a sleeper who turns over and turns back.",
         "He is like a sleeper who turns over and turns back."),
        ("Earl Sawyer went out to the house, and called their attention to it.",
         "Earl Sawyer goes out to the house. Sawyer calls their attention to it."),
        ("He approached the village in September.", "He comes close to the village in September."),
        ("She could not know what it meant.", "She can't know what it means."),
        ("When the curate came, nobody could say which; each of them knew only a name.",
         "Nobody can say which when the curate comes. Each of them knows just a name."),
        ("Nobody, even those who knew him, remembered long enough to move.",
         "Nobody, even people who know him, remembers long enough to move."),
    ],
)  # fmt: skip
def test_neutral_by_class(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("He felt a fright as tangible as a wind.", "He feels a fright as ... as a wind."),
        (
            "Mrs Corey, unable to learn more, telephoned.",
            "Mrs Corey, ... to learn more, telephones.",
        ),
        ("They burst forth in a few hours.", "They burst forth in a few hours."),
        ("It was then that the horror came.", "It is then that the horror comes."),
        ("Then came a halt.", "Then comes a halt."),
        ("Nobody, even those who saw it, spoke.", "Nobody, even people who see it, talks."),
        ("He led his slattemly, crooked daughter in.", "He leads his daughter in."),
        ("Rare and forbidden books were there.", "Books are there."),
        ("He looked in vain for her.", "He looks in vain for her."),
        ("The grass turned to a sickly grey.", "The grass turns to a grey."),
        ("He knew it well, yet saw no way.", "He knows it, yet sees no way."),
        ("They made me wise.", "They make me ...."),
        ("He was more and more hated and dreaded there.", "He is hated and feared there."),
        (
            "Opinions are divided, and the negative finally won.",
            "Opinions are divided, and the negative won.",
        ),
        ("It was old—older by far than the town.", "It is ...—... by far than the town."),
        (
            "The floor was covered with a kind of stuff.",
            "The floor is covered with a kind of stuff.",
        ),
        (
            "It rose close to the feet of the hills among which it ran.",
            "It rises to the feet of the hills among which it runs.",
        ),
        ("The mill stood empty.", "The mill stands ...."),
        ("It was louder than ever.", "It is ... than ever."),
        ("The road is far from easy.", "The road is far from easy."),
        ("'Then far ahead he saw it.'", "'Ahead he saw it.'"),
        ("Many stories about him were told.", "Many stories about him are told."),
    ],
)
def test_dropout_by_class(text: str, bare: str) -> None:
    assert drop_description(text) == bare


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("The dogs of the farms barked.", "The [PLACE]s' [CREATURE]s barked."),
        ("The farms' owner saw the people.", "The [PLACE]s' [PERSON] saw the [PERSON]s."),
        ("The Fryes left.", "The [PERSON]s left."),
        ("One dreads to trust it.", "One fears to trust it."),
        ("The men's chanting grew.", "The [PERSON]s' [THING] grew."),
        ("The next Hallowe'en the youth came.", "The next [TIME] the [PERSON] came."),
        ("The officials and the pedlar laughed.", "The [PERSON]s and the [PERSON] laughed."),
        (
            "Nothing in English was said of the vegetation.",
            "Nothing in English was said of the [THING].",
        ),
        ("He was a child of three and a half.", "He was a [PERSON] of three and a half."),
        ("She had a loud voice.", "She had a loud [THING]."),
        ("The road rejoins the river.", "The [PLACE] rejoins the [PLACE]."),
        ("He had some kind of a belt.", "He had a [THING]."),
    ],
)
def test_abstract_by_class(text: str, kinds: str) -> None:
    assert replace_nouns(text) == kinds


@pytest.mark.parametrize("text", TEXTS, ids=list(TEXTS))
def test_abstract_leaves_every_verb_alone(text: str) -> None:
    kept = re.findall(r"\b(?:was|were|had|did)\b", replace_nouns(TEXTS[text]))
    assert kept == re.findall(r"\b(?:was|were|had|did)\b", TEXTS[text])
    assert kept


def test_contractions_need_something_behind_them() -> None:
    for text, short in (
        ("It is not here.", "It isn't here."),
        ("He has seen it, and she knows who he is.", "He's seen it, and she knows who he is."),
        ("A man who confesses to it is looked on.", "A man who confesses to it is looked on."),
        ("He will not come; he cannot.", "He won't come; he can't."),
    ):
        assert written(contracted(tag_sentence(text))) == short


def test_pairs_are_turned_only_where_nothing_else_hangs_on_them() -> None:
    for text, turned in (
        ("He saw bones and skulls.", "He saw skulls and bones."),
        ("He saw bones and skulls of men.", "He saw bones and skulls of men."),
        ("He saw old bones and skulls.", "He saw old bones and skulls."),
        ("They were grave and quiet.", "They were quiet and grave."),
    ):
        assert written(pairs_turned(tag_sentence(text))) == turned
