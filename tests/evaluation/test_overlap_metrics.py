"""ROUGE, BLEU and chrF of single replies are the numbers of rouge-score 0.1 and sacrebleu 2.6."""

from __future__ import annotations

import pytest

from graftlab.errors import ConfigError
from graftlab.evaluation.metrics.bleu import Bleu
from graftlab.evaluation.metrics.chrf import Chrf
from graftlab.evaluation.metrics.rouge import Rouge
from graftlab.evaluation.replies import Case, Said
from graftlab.generation.prompts import Prompt
from graftlab.types import Conversation, Message

# reply, reference, BLEU, chrF, chrF++, ROUGE-1, -2 and -L, as those packages gave them
KNOWN = [
    (
        *("The cat sat on the mat.", "A cat sat on a mat, quietly."),
        *(20.873176328735713, 36.05189063913424, 37.5979279964335),
        *(0.6153846153846153, 0.3636363636363636, 0.6153846153846153),
    ),
    ("4", "4", 100, 100, 100, 1, 0, 1),
    ("a b", "a c", 50, 25, 25, 0.5, 0, 0.5),
    (
        *('It\'s "quoted" & (odd).', "It's 'quoted' & odd"),
        *(6.27465531099474, 41.71750557840579, 36.095850412250755, 1, 1, 1),
    ),
    (
        *("Paris", "The capital is Paris."),
        *(1.8315638888734187, 21.653177338375105, 22.013923594565377, 0.4, 0, 0.4),
    ),
    ("", "x", 0, 0, 0, 0, 0, 0),
]


def case(text: str, reference: str) -> Case:
    prompt = Prompt(Conversation((Message("user", "Go on."),)), reference)
    return Case(prompt, Said(text, 3, True, 0.1))


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known[0])
def test_scores_are_those_of_the_reference_packages(known: tuple[str, str, *tuple[float]]) -> None:
    text, reference, bleu, chrf, chrf_words, *rouge = known
    one = case(text, reference)
    assert Bleu().score(one)["avg_bleu"] == pytest.approx(bleu, abs=1e-3)
    assert Chrf().score(one)["avg_chrf"] == pytest.approx(chrf)
    assert Chrf(word_order=2).score(one)["avg_chrf"] == pytest.approx(chrf_words)
    assert list(Rouge().score(one).values()) == pytest.approx(rouge, abs=1e-5)


def test_words_of_any_script_count() -> None:
    """The original ROUGE knows ASCII alone, and has 0 here."""
    assert Rouge().score(case("这是我的猫", "这是我的狗"))["avg_rouge1"] == pytest.approx(0.8)
    assert Rouge().score(case("Übung", "übung"))["avg_rouge1"] == 1
    assert Bleu(tokenize="zh").score(case("这是我的猫", "这是我的狗"))["avg_bleu"] > 60
    assert Bleu(lowercase=True).score(case("Red", "red"))["avg_bleu"] == pytest.approx(100)
    assert Bleu().score(case("Red", "red"))["avg_bleu"] == 0


def test_keys_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.bleu\.tokenize"):
        Bleu(tokenize="13b")
    with pytest.raises(ConfigError, match=r"metrics\.chrf\.word_order"):
        Chrf(word_order=-1)
