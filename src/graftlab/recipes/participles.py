"""Past forms and participles, which look the same: which of the two a clause needs.

the figures seen there were small        seen: a participle, the clause has its verb
before they woke the clerk unlocked it   unlocked: the verb of its clause
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graftlab.recipes.clauses import clause_start, reports
from graftlab.recipes.nounphrases import phrase_start
from graftlab.recipes.tagging import Word
from graftlab.recipes.wordlists import words_of_kind

_IRREGULAR_PAST = words_of_kind("irregular past")
_ONLY_PAST = words_of_kind("past, never participle")


def with_past_forms(words: Sequence[Word]) -> list[Word]:
    """Participles and past forms, which look the same, tagged by what the clause needs."""
    fixed = list(words)
    for index, word in enumerate(fixed):
        if word.tag == "VVD" and _is_participle(fixed, index):
            fixed[index] = replace(word, tag="VVN")
        elif word.tag in ("VVN", "AJ0") and _is_past(fixed, index):
            fixed[index] = replace(word, tag="VVD")
        elif word.tag == "VVB" and word.low in _IRREGULAR_PAST and index and (
            fixed[index - 1].tag in ("NN1", "NP0") or _joins_past(fixed, index)
        ):  # fmt: skip
            fixed[index] = replace(word, tag="VVD")  # "the frost let go", "she rose and spread"
    return fixed


def _joins_past(words: Sequence[Word], index: int) -> bool:
    last = next((word for word in reversed(words[:index]) if word.is_verb), None)
    return words[index - 1].low == "and" and last is not None and last.tag == "VVD"


def _is_participle(words: Sequence[Word], index: int) -> bool:
    """ "the figures seen there were": no subject of its own, and another verb in its clause."""
    word = words[index]
    if word.low in _ONLY_PAST:
        return False
    if _joins_participle(words, index):
        return True
    end = index - 1
    while end >= 0 and (
        words[end].is_adverb or (words[end].low == "and" and words[end - 1].is_adverb)
    ):
        end -= 1  # "was more and more hated"
    if end < 0 or words[end].tag in ("PNP", "PNI", "EX0", "PNQ", "DTQ", "CJT", "CJC", "CJS"):
        return False
    if words[end].tag[:2] in ("VB", "VH"):
        return True  # "had then fled"
    if not (words[end].is_noun or words[end].text == ","):
        return False
    if not (word.low.endswith("ed") or word.low in _IRREGULAR_PAST):
        return False
    fresh = phrase_start(words, end)
    if fresh > 0 and (words[fresh - 1].is_noun or words[fresh - 1].tag in ("AJ0", "AV0", "AVP")):
        return False  # "in the way | the birds followed", "were awake | the clerk unlocked"
    start = clause_start(words, end + 1)
    own = words[start : end + 1]
    if _waits_for_verb(words, start):
        return False  # "the men who stood there believed": the sentence has no other verb
    if fresh > 0 and words[fresh - 1].low == "with":
        return True  # "with its last page turned"
    if words[end].is_noun and any(w.is_finite and not reports(w) for w in own):
        return True
    return words[end].is_noun and _verb_follows(words, index)


def _waits_for_verb(words: Sequence[Word], start: int) -> bool:
    """Whether the clause at `start` is a relative whose noun has had no verb so far."""
    relative = start > 1 and words[start - 1].tag in ("PNQ", "DTQ", "CJT")
    return relative and not any(word.is_finite for word in words[: start - 1])


def _verb_follows(words: Sequence[Word], index: int) -> bool:
    """ "the deposits found within the circle were": the verb of a noun that stands before."""
    within = False  # a phrase that a preposition opened
    for word in words[index + 1 :]:
        if word.is_finite and word.tag != "VVB":
            return True
        if word.tag in ("PRP", "PRF"):
            within = True
        elif word.is_noun or word.is_determiner or word.tag == "PNP":
            if not within:
                return False
            within = not word.is_noun
        elif not (word.is_adverb or word.is_adjective or word.tag == "AVP"):
            return False
    return False


def _joins_participle(words: Sequence[Word], index: int) -> bool:
    """ "had seized and steadied him": the form of the participle in front of "and"."""
    if words[index - 1].low not in ("and", "or", "nor"):
        return False
    for back in range(index - 2, -1, -1):
        word = words[back]
        if word.is_verb:
            helped = any(w.tag[:2] in ("VH", "VB") for w in words[max(0, back - 6) : back])
            return word.tag == "VVN" and helped
        if word.tag in ("PUN", "CJS", "CJT", "PNQ", "DTQ", "AVQ"):
            return False
    return False


def _is_past(words: Sequence[Word], index: int) -> bool:
    """ "Armitage now perceived": tagged as a participle, yet the only verb of its clause."""
    word = words[index]
    if not (word.low in _IRREGULAR_PAST or (word.low.endswith("ed") and word.tag == "VVN")):
        return False
    end = index - 1
    while end >= 0 and words[end].is_adverb:
        end -= 1
    if end < 0 or words[end].low in ("him", "them", "me", "us", "her"):
        return False
    last = next((w for w in reversed(words[:end]) if w.is_verb or w.text in (";", "—")), None)
    if words[end].low in ("and", "but"):  # "resembled a whale, and ended in a tail"
        return last is not None and last.tag == "VVD"
    start = clause_start(words, end)
    if start > 1 and words[start - 1].low == "and" and words[start - 2].is_noun:
        start = clause_start(words, start - 2)  # "its tail and tentacles changed"
    if words[end].is_noun and _takes_object(words, index, subject=end, start=start):
        return True
    if any(other.is_verb for other in words[start:end]):
        return False
    if words[end].tag not in ("PNP", "NP0"):  # "while early explorers noted it"
        fronted = words[start].tag in ("PRP", "PRF")
        if fronted or not words[end].is_noun or not _begins(words, start, last):
            return False
    return not _finite_before_pause(words[index + 1 :])


def _takes_object(words: Sequence[Word], index: int, *, subject: int, start: int) -> bool:
    """ "before they were awake | the clerk unlocked the door": a participle takes no object."""
    after = words[index + 1].tag if index + 1 < len(words) else ""
    if after not in ("AT0", "DPS", "PNP"):
        return False
    fresh = phrase_start(words, subject)
    before = words[fresh - 1] if fresh else None
    opens = before is None or before.is_adjective or before.tag in ("CJS", "AVQ", "CJT")
    return opens or (after == "PNP" and _waits_for_verb(words, start))


def _begins(words: Sequence[Word], start: int, last: Word | None) -> bool:
    """Whether a clause of its own, with a subject, begins at `start`."""
    if start == 0 or words[start - 1].tag == "CJS" or words[start - 1].low in ("but", "for", "so"):
        return True
    if words[start - 1].text == ",":
        return words[0].tag in ("CJS", "AVQ")  # "When it breathed, its tail changed colour"
    joined = words[start - 1].low == "and" and start > 1 and words[start - 2].text == ","
    return joined and (last is None or last.tag != "VVN")


def _finite_before_pause(words: Sequence[Word]) -> bool:
    for word in words:
        if word.tag == "PUN" or word.tag[:2] == "CJ":
            return False
        if word.is_finite:
            return True
    return False
