"""Clauses, as far as tags show them: where one begins, and whether it is the main one."""

from __future__ import annotations

from collections.abc import Sequence

from graftlab.recipes.nounphrases import pronoun_number
from graftlab.recipes.tagging import Word

PAUSES = frozenset({";", "—", ":", "(", ")", '"', "'", ".", "!", "?", "..."})
"""Marks that no clause reaches across."""

OPENERS = ("CJS", "CJT", "AVQ", "DTQ", "PNQ")
"""Tags of what opens a side clause."""

MAIN_VERBS = frozenset(
    ["VVD", "VVZ", "VVB", "VBD", "VBZ", "VBB", "VHD", "VHZ", "VHB", "VDD", "VDZ", "VDB", "VM0"]
)
"""Tags of the verbs that a clause can rest on."""

_REPORTING = frozenset({"say", "think", "know", "believe", "feel", "suppose", "hope", "tell"})


def clause_start(words: Sequence[Word], end: int) -> int:
    """Where the clause begins in which the word at `end` stands: behind a pause or conjunction."""
    start = end
    while start > 0:
        word = words[start - 1]
        if word.text in PAUSES or word.text == "," or word.tag in (*OPENERS, "CJC"):
            break
        start -= 1
    return start


def is_side_matter(words: Sequence[Word], verb: int) -> bool:
    """Whether the verb stands in a clause that a conjunction or relative has opened."""
    start = clause_start(words, verb)
    if start == 0:
        return words[0].tag in OPENERS
    before = words[start - 1]
    if before.tag in OPENERS:  # "the tales that came from there are silly": its verb has been
        return not any(word.tag in MAIN_VERBS for word in words[start:verb])
    if before.tag != "CJC":
        return words[start].tag in OPENERS
    last = next((i for i in range(start - 1, -1, -1) if words[i].tag in MAIN_VERBS), None)
    fresh = any(word.is_noun or pronoun_number(word) is not None for word in words[start:verb])
    return last is not None and not fresh and is_side_matter(words, last)


def reports(word: Word) -> bool:
    """A verb behind which a clause may begin without "that": "he said the road was closed"."""
    return word.lemma in _REPORTING
