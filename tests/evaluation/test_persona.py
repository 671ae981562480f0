"""`metrics=persona`: the author's own text is nearest, and the words that mark it are found."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from graftlab.errors import ConfigError
from graftlab.evaluation.metrics.author import (
    marking_words,
    read_author,
    sentence_lengths,
    spread_apart,
)
from graftlab.evaluation.metrics.persona import Persona
from graftlab.evaluation.replies import Case, Said
from graftlab.generation.prompts import Prompt
from graftlab.types import Conversation, Message

PLAIN = [
    *("the", "a", "of", "to", "in", "is", "it", "that", "was", "for", "on", "with", "as"),
    *("at", "by", "he", "she", "they", "we", "you", "and", "but", "not"),
]
OWN = ["eldritch", "cyclopean", "gibbous", "squamous"]


def written(seed: int, *, sentences: int, length: int, own: float, commas: bool = False) -> str:
    """Sentences of about `length` words, a share of them the author's own."""
    draw = random.Random(seed)
    made = []
    for _ in range(sentences):
        words = [
            draw.choice(OWN) if draw.random() < own else draw.choice(PLAIN[: 23 if own else 12])
            for _ in range(max(2, round(draw.gauss(length, length / 4))))
        ]
        glue = ", " if commas else " "
        made.append((words[0].capitalize() + " " + glue.join(words[1:])).strip() + ".")
    return "\n\n".join(" ".join(made[at : at + 5]) for at in range(0, len(made), 5))


@pytest.fixture
def persona(tmp_path: Path) -> Persona:
    corpus, plain = tmp_path / "corpus.txt", tmp_path / "plain.txt"
    corpus.write_text(written(1, sentences=200, length=20, own=0.1, commas=True))
    plain.write_text(written(2, sentences=300, length=8, own=0.0))
    return Persona(corpus=str(corpus), plain=str(plain), frequent=20)


@pytest.fixture
def score(persona: Persona) -> Callable[[str], dict[str, float | None]]:
    prompt = Prompt(Conversation((Message("user", "Go on."),)))
    return lambda text: persona.score(Case(prompt, Said(text, 9, True, 0.1)))


def test_the_authors_text_is_nearer_than_others(
    score: Callable[[str], dict[str, float]], persona: Persona
) -> None:
    near = score(written(3, sentences=10, length=20, own=0.1, commas=True))
    far = score(written(4, sentences=25, length=8, own=0.0))
    assert near.keys() == persona.measures().keys()
    assert near["avg_rhythm_distance"] < 4 < 8 < far["avg_rhythm_distance"]
    assert near["avg_delta"] < 0.7 * far["avg_delta"]
    assert 0.5 < near["avg_vocabulary"] < 1.6
    assert far["avg_vocabulary"] < 0.5
    assert near["avg_commas"] > 80
    assert far["avg_commas"] == far["avg_clauses"] == 0
    assert near["avg_sentence_words"] == pytest.approx(20, abs=3)
    assert near["avg_sentence_variance"] > 4


@pytest.mark.parametrize("length", [6, 12, 60])
def test_delta_is_fair_to_short_replies(persona: Persona, length: int) -> None:
    """Burrows' own, a mean of distances, took the author's six words for the stranger's."""
    author = read_author((persona.corpus,), (persona.plain,), frequent=20, words=200)
    draw = random.Random(5)
    own = written(6, sentences=100, length=20, own=0.1).replace(".", "").lower().split()
    near = [author.delta(draw.choices(own, k=length)) for _ in range(600)]
    far = [author.delta(draw.choices(["aardvark", "the", "zebra"], k=length)) for _ in range(600)]
    whole = author.delta(own)
    error = pstdev(near) / len(near) ** 0.5
    assert fmean(near) == pytest.approx(whole, abs=4 * error)
    assert fmean(near) < 0.5 * fmean(far)


def test_a_reply_without_words_says_nothing(
    score: Callable[[str], dict[str, float | None]],
) -> None:
    assert set(score(" ... \n").values()) == {None}


def test_words_that_mark_the_author() -> None:
    own = Counter({"the": 500, "eldritch": 30, "rare": 2, "once": 1})
    others = Counter({"the": 510, "eldritch": 1, "plain": 40})
    assert marking_words(own, others, most=9) == {"eldritch"}
    assert marking_words(own, own, most=9) == frozenset()
    many = Counter({f"word{n}": 50 + n for n in range(20)})
    assert marking_words(many, Counter({"the": 900}), most=3) == {"word19", "word18", "word17"}


def test_distance_of_distributions() -> None:
    assert spread_apart([1, 2, 3], [1, 2, 3]) == 0
    assert spread_apart([5], [2, 2, 8]) == 3
    assert spread_apart([0, 10], [5, 5]) == 5
    assert spread_apart([4, 1], [2, 5]) == 1
    assert sentence_lengths("One two three. Four!\n\nFive six.") == [3, 1, 2]


def test_frequent_words_are_no_vocabulary(persona: Persona) -> None:
    """However much more often the author says them."""
    author = read_author((persona.corpus,), (persona.plain,), frequent=20, words=200)
    rarer = set(PLAIN) - author.frequent.keys()
    assert 0 < len(rarer) < 5
    assert set(OWN) <= author.marking <= set(OWN) | rarer


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give metrics.persona.corpus=FILE"):
        Persona().check()
    short = tmp_path / "short.txt"
    short.write_text("A few words.")
    with pytest.raises(ConfigError, match="has 3 words: an author is known by 2000"):
        Persona(corpus=str(short)).check()
    with pytest.raises(ConfigError, match=r"metrics\.persona\.corpus=.*none.txt does not exist"):
        Persona(corpus=[str(tmp_path / "none.txt")]).check()
    assert "avg_vocabulary" not in Persona(corpus="x").measures()
