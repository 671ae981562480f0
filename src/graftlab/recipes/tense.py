"""The present tense, as reports are told: a sentence is told in it throughout, or not at all.

    The dogs of the village barked, and fled.      ->  The dogs of the village bark, and flee.
    They were once the seats of a tribe.           ->  stays: what is over has no present
    These tales came from Salem, and are silly.    ->  stays: the present is there already
    "I knew him," he said.                         ->  "I knew him," he says.

A sentence stays in the past where the number of one of its subjects is in doubt (subjects.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from graftlab.recipes.clauses import MAIN_VERBS, OPENERS, PAUSES, is_side_matter
from graftlab.recipes.lexicon import third_person
from graftlab.recipes.participles import with_past_forms
from graftlab.recipes.subjects import is_several
from graftlab.recipes.tagging import Word
from graftlab.recipes.wordlists import words_of_kind

_PAST = ("VVD", "VBD", "VHD", "VDD")
_PRESENT = ("VVZ", "VBZ", "VBB", "VHZ", "VHB", "VDZ", "VDB")
_IRREGULAR_PAST = words_of_kind("irregular past")
_OVER = words_of_kind("says that it is over")
_MODALS = {"could": "can", "might": "may"}
_LAST = ("night", "week", "month", "year", "summer", "winter", "spring", "autumn", "evening")
_QUOTES = ('"', "'")


def present(words: Sequence[Word]) -> list[Word]:
    """Past tenses as present ones, each as its subject wants; quoted speech for itself."""
    words = with_past_forms(words)
    told = list(words)
    for part in _parts(words):
        changed = _told_part(words, part)
        if changed is not None:
            for index, word in changed.items():
                told[index] = word
    return told


def _parts(words: Sequence[Word]) -> list[list[int]]:
    """The sentence as told and as quoted, where the quotation begins and ends within it."""
    marks = [index for index, word in enumerate(words) if word.text in _QUOTES]
    if len(marks) < 2 or len(marks) % 2:
        return [list(range(len(words)))]
    quoted: list[list[int]] = []
    outside = list(range(marks[0]))
    for number, mark in enumerate(marks):
        end = marks[number + 1] if number + 1 < len(marks) else len(words)
        inner = list(range(mark + 1, end))
        if number % 2 == 0:
            quoted.append(inner)
        else:
            outside += inner
    # What was said keeps the time in which it was said.
    return [outside]


def _told_part(words: Sequence[Word], part: Sequence[int]) -> dict[int, Word] | None:
    """New words by index; None where this part stays in the past."""
    if any(_stays_past(words, index) for index in part):
        return None
    changed: dict[int, Word] = {}
    for index in part:
        word = words[index]
        if word.tag == "VM0" and word.low == "would":
            said = "wo" if words[index + 1].low == "n't" else "will"
            changed[index] = replace(word, text=_like(said, word))
        elif word.low in _MODALS and word.tag == "VM0":
            if index + 1 < len(words) and any(
                other.low == "have" for other in words[index + 1 : index + 4]
            ):
                continue
            negated = index + 1 < len(words) and words[index + 1].low == "n't"
            said = "ca" if negated and word.low == "could" else _MODALS[word.low]
            if not (negated and word.low == "might"):
                changed[index] = replace(word, text=_like(said, word))
        elif word.tag in _PAST and not _is_wish(words, index):
            told = _told(words, index)
            if told is None:
                return None
            changed[index] = told
    return changed


def _stays_past(words: Sequence[Word], index: int) -> bool:
    """Whether this word keeps its sentence in the past: a present verb, "would", "once", "ago"."""
    word = words[index]
    if word.tag in _PRESENT:
        return not is_side_matter(words, index)  # "like a sleeper who turns over"
    if word.low in _OVER:
        return True
    before = words[index - 1].low if index else ""
    after = words[index + 1].low if index + 1 < len(words) else ""
    if word.tag == "VVB" and before in ("i", "we", "you", "they"):
        return not is_side_matter(words, index)
    if word.tag == "VM0" and word.low in ("will", "shall", "'ll", "'d", "would"):
        return word.low != "would" or not _is_future(words, index)
    if word.low == "last" and after in _LAST:
        return True
    described = index + 1 < len(words) and words[index + 1].is_adjective  # "the once proud"
    if word.low != "once" or before == "had" or described:
        return False
    return before not in ("at", "for", "never") and after not in (
        "more",
        "again",
        "or",
        "in",
        "before",
    )


def _is_future(words: Sequence[Word], index: int) -> bool:
    """ "he knew that it would rain": what lies ahead of a past, and no condition."""
    near = [word.low for word in words[index + 1 : index + 5]]
    told = any(word.tag in _PAST for word in words)
    return told and "have" not in near and not any(w.low in ("if", "unless") for w in words)


def _is_wish(words: Sequence[Word], index: int) -> bool:
    """Behind "if", "as though" or "wish", with no verb in between."""
    for back in range(index - 1, -1, -1):
        word = words[back]
        if word.low in ("if", "wish") or (word.low == "though" and words[back - 1].low == "as"):
            return True
        if word.tag in MAIN_VERBS or word.tag in OPENERS or word.text in PAUSES:
            return False
    return False


def _told(words: Sequence[Word], index: int) -> Word | None:
    word = words[index]
    if word.low == "used" and index + 1 < len(words) and words[index + 1].tag == "TO0":
        return word
    if word.tag == "VBD":
        return _told_be(words, index)
    if word.text[0] == "'":
        return None
    if word.tag == "VVD" and not (word.low.endswith("ed") or word.low in _IRREGULAR_PAST):
        return None  # the tagger guessed
    if word.tag == "VVD" and index and words[index - 1].low == "what" and (
        index + 1 < len(words) and (words[index + 1].is_adjective or words[index + 1].is_noun)
    ):  # fmt: skip
        return None  # "what cursed shapeless influence"
    number = is_several(words, index)
    if number is None:
        return None
    if word.tag == "VHD":
        said = "have" if number else "has"
    elif word.tag == "VDD":
        said = "do" if number else "does"
    else:
        stem = _stem(word)
        said = stem if number else third_person(stem)
    return replace(word, text=_like(said, word), tag=word.tag[:2] + ("B" if number else "Z"))


def _told_be(words: Sequence[Word], index: int) -> Word:
    """ "was" and "were" say themselves how many; only "I was" has to be seen."""
    word = words[index]
    near = [other.text for other in words[max(0, index - 2) : index + 2]]
    said = "are" if word.low == "were" else "am" if "I" in near else "is"
    return replace(word, text=_like(said, word), tag="VBB" if said == "are" else "VBZ")


def _stem(word: Word) -> str:
    """The dictionary form; the tagger takes "piped" for a form of "pip"."""
    short = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", word.lemma) is not None
    return word.lemma + "e" if short and word.low == word.lemma + "ed" else word.lemma


def _like(said: str, word: Word) -> str:
    return said.capitalize() if word.text[0].isupper() else said
