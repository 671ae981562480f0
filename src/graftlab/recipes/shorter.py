"""Shorter: what decorates a sentence and can go without its grammar falling apart.

similes                       black as if burnt, like a bat, ...        up to the next pause
adverbs of manner and degree  unless something hangs on them            "long enough to move"
adjectives in a row           the last one stays                        the crude wooden bridge
"""

from __future__ import annotations

from collections.abc import Sequence

from graftlab.recipes.tagging import Word
from graftlab.recipes.wordlists import words_of_kind

_DEGREE = words_of_kind("adverb of degree")
_KEPT_LY = words_of_kind("-ly that stays")


def without_similes(words: list[Word]) -> list[Word]:
    """Without "as if ..." and "like a ...", up to the next pause."""
    kept: list[Word] = []
    skipping = False
    paused = _pauses_before_verb(words)
    for index, word in enumerate(words):
        after = words[index + 1] if index + 1 < len(words) else None
        if skipping:
            skipping = word.text not in (",", ";", ".", "—", ":", "!", "?")
        elif kept and after is not None:
            as_if = word.low == "as" and after.low in ("if", "though") and not (
                kept[-1].tag[:2] == "VB" or paused[index]
            )  # fmt: skip
            like_a = word.low == "like" and word.tag == "PRP" and after.low in ("a", "an", "some")
            skipping = as_if or (like_a and not kept[-1].is_verb)
        if not skipping:
            kept.append(word)
    return kept


def _pauses_before_verb(words: Sequence[Word]) -> list[bool]:
    """Whether a comma comes before the next verb, per word: the clause is not over soon then."""
    found, paused = [], False
    for word in reversed(words):
        paused = word.text == "," or (paused and not word.is_finite)
        found.append(paused)
    return found[::-1]


def without_adverbs(words: list[Word]) -> list[Word]:
    """Without adverbs of manner and degree, and the commas and conjunctions that held them."""
    kept: list[Word] = []
    closed: set[int] = set()  # commas behind an aside that went
    for index, word in enumerate(words):
        if not _is_idle(words, index, kept):
            if word.text != "," or index not in closed:
                kept.append(word)
            continue
        after = words[index + 1 : index + 6]
        before = kept[-1].low if kept else ""
        compared = any(other.low == "than" for other in after)
        aside = before == "," and bool(after) and after[0].text == ","
        if aside:
            closed.add(index + 1)
        if (
            (before in ("less", "more", "most") and not compared)  # "less happily"
            or (
                before in ("and", "but", "though", "yet") and words[index - 2].is_adverb
            )  # "so darkly and steeply that"
            or aside  # ", too,"
        ):
            kept.pop()
    return kept


def _is_idle(words: Sequence[Word], index: int, kept: Sequence[Word]) -> bool:
    """Whether the word is an adverb of manner or degree that nothing else hangs on."""
    word = words[index]
    manner = word.low.endswith("ly") and word.low not in _KEPT_LY
    if not word.is_adverb or not (manner or word.low in _DEGREE or word.low == "however"):
        return False
    if word.low in ("however", "indeed") and word.text.islower():
        return words[index - 1].text == ","  # ", however, "
    if word.low == "even" and index and not words[index - 1].is_word:
        return False  # "no one, even those who"
    after = [other.low for other in words[index + 1 : index + 6]]
    if kept and kept[-1].low in ("as", "so", "how", "than", "less", "more"):
        return False
    if after[:1] == ["than"]:
        return False  # "rather than go"
    if word.low == "too" and after[:1] in (["much"], ["many"]):
        return False
    return word.low not in ("too", "most") or ("to" not in after and after[:1] != ["of"])


def without_rows(words: list[Word]) -> list[Word]:
    """Of several adjectives in front of a noun only the last, which says most of what it is."""
    kept: list[Word] = []
    to_noun = _lead_to_noun(words)
    for index, word in enumerate(words):
        if word.is_adjective and not word.text[0].isupper():
            after = index + 1
            while after < len(words) and words[after].low in (",", "and"):
                after += 1
            if after < len(words) and words[after].is_adjective and to_noun[after]:
                continue
        dangling = word.low in (",", "and") and kept and index and words[index - 1].is_adjective
        if dangling and kept[-1] is not words[index - 1]:
            continue
        kept.append(word)
    return kept


def _lead_to_noun(words: Sequence[Word]) -> list[bool]:
    """Whether a noun comes next that only adjectives and what joins them stand before, per word."""
    found, leads = [], False
    for word in reversed(words):
        joins = word.is_adjective or word.low in (",", "and")
        leads = leads if joins else word.is_noun
        found.append(leads)
    return found[::-1]
