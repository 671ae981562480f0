"""`metrics=invention`: figures of speech are told from plain words, and images are the author's."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftlab.errors import ConfigError
from graftlab.evaluation.metrics.figures import figures_in, images_in
from graftlab.evaluation.metrics.invention import Invention
from graftlab.evaluation.replies import Case, Said
from graftlab.generation.prompts import Prompt
from graftlab.types import Conversation, Message

FIGURES = [
    "The market is a shifting ocean of greed.",
    "It grinds like a great mill.",
    "The night was as black as coal.",
    "It moved as if it breathed.",
    "Something akin to rot.",
    "Prices are a tide of fear.",
]
PLAIN = [
    "The stock market is a type of market.",
    "I would like a table, and I like a good book.",
    "Answer as soon as possible, as well as you can.",
    "It is as good as possible and as easy as it gets.",
    "A share is a part of a company.",
    "The market is a system of exchanges.",
    "Alliteration is a repetition of sounds.",
    "It was a period of growth.",
    "Shares, bonds and so on, such as these.",
    "",
]


def case(text: str, *turns: str) -> Case:
    asked = turns or ("The Stock Market",)
    messages = tuple(Message("user", turn) for turn in asked)
    return Case(Prompt(Conversation(messages)), Said(text, 9, True, 0.1))


def test_figures_of_speech() -> None:
    assert [figures_in(text) for text in FIGURES] == [1] * len(FIGURES)
    assert [figures_in(text) for text in PLAIN] == [0] * len(PLAIN)
    assert figures_in(" ".join(FIGURES)) == len(FIGURES)
    assert figures_in("A shifting ocean of greed.") == 0
    assert figures_in("A shifting ocean of greed.", {"ocean"}) == 1
    assert figures_in("It is an ocean of greed.", {"ocean"}) == 1, "one, however it is found"
    assert figures_in("A kind of greed.", {"kind"}) == 0


def test_images_are_not_the_prompts_own_words() -> None:
    assert images_in("Gears turn the gears of the market", {"gears", "market"}, but="Market") == 2


def test_a_reply_to_a_bare_noun() -> None:
    metric = Invention(imagery=["Ocean", "gears"])
    metric.check()
    found = metric.score(case("A shifting ocean of greed."))
    assert (found["pct_invention"], found["pct_figure"], found["pct_image"]) == (1, 1, 1)
    assert found["avg_figures"] == 100 / 5
    plain = metric.score(case("The stock market is a place where shares are sold."))
    assert (plain["pct_invention"], plain["pct_figure"], plain["pct_image"]) == (0, 0, 0)
    other = metric.score(case("It is like a storm."))
    assert (other["pct_invention"], other["pct_figure"]) == (0, 1), "somebody else's image"
    assert metric.score(case("The gears are well oiled."))["pct_invention"] == 0, "no figure"
    assert Invention(imagery=["ocean"], images=2).score(case("an ocean of x"))["pct_image"] == 0
    assert metric.score(case(""))["avg_figures"] is None


def test_other_prompts_have_no_score() -> None:
    metric = Invention(imagery=["ocean"])
    framed = "Explain the concept.\n\n[INPUT]:\nThe Stock Market"
    for asked in ("The Stock Market", "Rain", "Rust on the gate", framed):
        assert metric.score(case("an ocean of x", asked))["pct_invention"] == 1, asked
    for asked in ("What is rain?", "Rain.", "Tell me about the stock market", "Hello\nRain", ""):
        assert set(metric.score(case("an ocean of x", asked)).values()) == {None}, asked


def test_images_come_from_the_authors_text_too(tmp_path: Path) -> None:
    corpus, plain = tmp_path / "corpus.txt", tmp_path / "plain.txt"
    common = " ".join(f"word{n} and word{n}x." for n in range(120)) + " "
    corpus.write_text(common * 20 + "The mechanism turns. " * 15)
    plain.write_text(common * 20)
    metric = Invention(corpus=str(corpus), plain=str(plain), imagery=["rot"])
    metric.check()
    assert metric.score(case("It is like a mechanism."))["pct_invention"] == 1
    assert metric.score(case("It is like a dog."))["pct_invention"] == 0
    assert metric.score(case("It is like a rot."))["pct_invention"] == 1
    plain.write_text(corpus.read_text())
    with pytest.raises(ConfigError, match=r"metrics\.invention\.plain: no word marks"):
        Invention(corpus=str(corpus), plain=str(plain), words=201).check()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    for metric in (Invention(), Invention(corpus="a.txt"), Invention(imagery=["a"], plain="b")):
        with pytest.raises(ConfigError, match=r"give metrics\.invention\.imagery=\[ocean,gears\]"):
            metric.check()
    with pytest.raises(ConfigError, match=r"metrics\.invention\.corpus=.*none.txt does not exist"):
        Invention(corpus=str(tmp_path / "none.txt"), plain="b").check()
