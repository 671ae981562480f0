"""Everyday phrasing: what is said as well in another way, so that less of the wording is shared.

    he knew that Dr Lamb was there     ->  he knew Lamb was there
    it is not known, he had seen       ->  it isn't known, he'd seen
    skulls and bones; grave and quiet  ->  bones and skulls; quiet and grave
    "Come," said Armitage              ->  "Come," Armitage said

Only what reads the same either way is turned round: no list of three, nothing that more hangs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graftlab.recipes.tagging import Word

_NEGATED = {"is": "", "are": "", "was": "", "were": "", "do": "", "does": "", "did": "",
            "have": "", "has": "", "had": "", "would": "", "could": "", "should": "",
            "can": "ca", "will": "wo"}  # fmt: skip
"""Verbs that take n't, and what is written of those that lose a letter."""

_SHORT = {"is": "'s", "has": "'s", "are": "'re", "am": "'m", "have": "'ve", "had": "'d",
          "will": "'ll", "would": "'d"}  # fmt: skip
_REPORTING = frozenset({"say", "think", "know", "believe", "feel", "hope", "see", "hear", "find"})
_TITLES = frozenset({"dr", "dr.", "mr", "mr.", "prof.", "professor"})
_SUBJECTS = frozenset({"i", "you", "he", "she", "it", "we", "they", "there"})
_HELPS = ("VVN", "VVG", "VBN", "VHN", "VDN", "VBI", "VVI", "VHI", "VDI")
_BEFORE_PAIR = ("AT0", "DPS", "PRP", "PRF", "DT0", "TO0")
_BEHIND_PAIR = ("PRP", "PRF", "POS", "CJC", "DTQ", "PNQ", "CJT", "VVN", "VVG", "TO0", "AJ0", "CJS")


def in_everyday_words(words: Sequence[Word]) -> list[Word]:
    """One sentence with all of the above."""
    return contracted(speaker_first(pairs_turned(_without_idle(words))))


def _without_idle(words: Sequence[Word]) -> list[Word]:
    """Small words that say little: "knew that he", "his own house", "the whole house"."""
    done: list[Word] = []
    for index, word in enumerate(words):
        before = words[index - 1] if index else None
        after = words[index + 1] if index + 1 < len(words) else None
        if word.low in _TITLES and after is not None and after.text[0].isupper():
            continue
        if before is None or after is None:
            done.append(word)
            continue
        that = word.tag == "CJT" and word.low == "that" and before.lemma in _REPORTING
        if that and before.is_verb and (after.tag in ("PNP", "DPS", "NP0") or after.low == "the"):
            continue
        if word.low == "own" and before.tag == "DPS" and (after.is_noun or after.is_adjective):
            continue
        if word.low == "whole" and before.low == "the" and after.is_noun:
            continue
        if word.low == "certain" and word.is_adjective and after.tag == "NN2":
            word = replace(word, text="some") if not before.is_determiner else word
        elif word.low == "near" and word.tag == "PRP" and after.is_determiner:
            done.append(replace(word, text="close"))
            word = Word("to", "PRP", "to")
        elif word.low == "only" and word.is_adverb and not before.is_determiner:
            word = replace(word, text="just")
        elif word.low == "save" and word.tag == "PRP":
            word = replace(word, text="except")
        done.append(word)
    return done


def contracted(words: Sequence[Word]) -> list[Word]:
    """ "is not" as "isn't", "it is" as "it's", where more of the clause follows."""
    done: list[Word] = []
    for index, word in enumerate(words):
        before = words[index - 1] if index else None
        after = words[index + 1] if index + 1 < len(words) else None
        if word.low == "not" and done and done[-1].low in _NEGATED:
            short = _NEGATED[done[-1].low]
            if short:
                text = short.capitalize() if done[-1].text[0].isupper() else short
                done[-1] = replace(done[-1], text=text)
            done.append(replace(word, text="n't", before=""))
        elif (
            before is not None
            and after is not None
            and (index < 2 or words[index - 2].tag not in ("PRP", "PRF"))
            and _shortens(before, word, after)
        ):
            done.append(replace(word, text=_SHORT[word.low], before=""))
        else:
            done.append(word)
    return done


def _shortens(before: Word, word: Word, after: Word) -> bool:
    if word.low not in _SHORT or before.low not in _SUBJECTS or not word.before:
        return False
    if before.low == "there" and (word.low != "is" or after.tag == "VVG"):
        return False
    if word.low in ("has", "have", "had", "will", "would"):
        return after.tag in _HELPS and not (
            before.low == "it" and word.low in ("would", "will", "had")
        )
    return after.tag in ("AT0", "AJ0", "VVN", "VVG", "DPS", "DT0") or after.low == "in"


def pairs_turned(words: Sequence[Word]) -> list[Word]:
    """ "A and B" as "B and A", where nothing else belongs to one of them only."""
    turned = list(words)
    for index in range(1, len(turned) - 3):
        one, joint, other, behind = turned[index : index + 4]
        if joint.low not in ("and", "or") or one.text[0].isupper() or other.text[0].isupper():
            continue
        if _is_pair(turned[index - 1], one, other, behind):
            turned[index] = replace(other, before=one.before)
            turned[index + 2] = replace(one, before=other.before)
    return turned


def _is_pair(before: Word, one: Word, other: Word, behind: Word) -> bool:
    if behind.is_noun or behind.tag in _BEHIND_PAIR or one.tag != other.tag:
        return False
    if one.tag in ("NN1", "NN2"):
        return before.tag in _BEFORE_PAIR or (before.is_verb and before.tag[:2] == "VV")
    return one.tag == "AJ0" and before.tag[:2] == "VB" and not behind.is_verb


def speaker_first(words: Sequence[Word]) -> list[Word]:
    """'," said Armitage' as '," Armitage said'."""
    for index in range(1, len(words) - 1):
        quote, verb = words[index - 1], words[index]
        if quote.text not in ('"', "'") or verb.tag not in ("VVD", "VVZ"):
            continue
        end = index + 1
        while end < len(words) and words[end].is_name:
            end += 1
        if end > index + 1:
            return [*words[:index], *words[index + 1 : end], verb, *words[end:]]
    return list(words)
