"""Noun phrases, read backwards from their last word by their tags.

the smell of the hills          head "smell": "of the hills" hangs on it
the aversion shown to him       head "aversion"
most of the hills               head "most", whose number is that of "hills"
in the course of time           no head that could be a subject
"""

from __future__ import annotations

from collections.abc import Sequence

from graftlab.recipes.tagging import Word

_SEVERAL = frozenset({"i", "you", "we", "they"})
_ONE = frozenset({"he", "she", "it"})
_SEVERAL_ALONE = frozenset(
    {"these", "those", "many", "both", "few", "several", "all", "some", "most", "others", "more"}
)
_ONE_ALONE = frozenset({"this", "that", "each", "another", "neither", "either", "much", "what"})
_SHARES = frozenset(
    {"all", "most", "some", "any", "half", "more", "rest", "none", "number", "lot", "score"}
    | {"dozen", "couple", "handful", "majority"}
)
"""Words of how much: "most of the hills" are several, "most of the snow" is one."""
OPENS_CLAUSE = frozenset({"as", "after", "before", "since", "until", "till", "for", "than", "like"})
"""Prepositions that are conjunctions as well, which the tagger cannot always tell."""

ALWAYS_SEVERAL = frozenset({"people", "police", "cattle", "folk", "folks", "gentry", "poultry"})


def pronoun_number(word: Word) -> bool | None:
    """True for several (and "I"), False for one, None for what is no subject pronoun."""
    if word.tag != "PNP":
        return None
    return True if word.low in _SEVERAL else False if word.low in _ONE else None


def is_head(words: Sequence[Word], index: int) -> bool:
    """Whether a noun phrase may end here."""
    if index < 0:
        return False
    word = words[index]
    return (
        word.is_noun
        or word.tag in ("PNI", "DT0", "CRD", "ORD")
        or word.low in ("few", "many", "others")
    )


def noun_number(words: Sequence[Word], index: int) -> bool | None:
    """Number of the noun, number word or indefinite pronoun at `index`."""
    word = words[index]
    if word.is_name:
        first = index
        while first > 0 and words[first - 1].is_name:
            first -= 1
        article = first > 0 and words[first - 1].low == "the"
        return article and word.low.endswith("s") and not word.low.endswith("ss")
    if word.is_noun:
        if word.tag == "NN2" or word.low in ALWAYS_SEVERAL:
            return True
        return None if word.tag == "NN0" else False
    if word.tag == "CRD":
        return None if word.text[0].isdigit() else word.low != "one"
    if word.low in _SEVERAL_ALONE:
        return True
    return False if word.low in _ONE_ALONE or word.tag == "PNI" else None


def phrase_start(words: Sequence[Word], end: int) -> int:
    """Where the noun phrase that ends at `end` begins: its article or first adjective."""
    start = end
    while start > 0 and _is_inside(words, start - 1):
        start -= 1
    return start


def _is_inside(words: Sequence[Word], index: int) -> bool:
    """Whether the word still belongs to the noun phrase that goes on behind it."""
    word, after = words[index], words[index + 1]
    if after.tag in ("AT0", "DPS"):
        return word.low in ("all", "both")
    if after.tag == "DT0":
        return word.tag in ("AT0", "DPS") or word.low in ("all", "both")
    if after.tag == "POS":
        return word.is_noun or word.tag == "PNI"
    if word.is_noun:
        # "the months | certain callers", "between gasps | Luther"
        fresh = after.is_adjective or after.is_determiner or (after.is_name and word.tag == "NN2")
        return not fresh and after.is_noun
    if word.is_adjective or word.is_determiner or word.tag in ("POS", "UNC"):
        return True
    if word.low in ("and", ",") and index:
        return words[index - 1].is_adjective and after.is_adjective
    if word.is_adverb:
        return after.is_adjective or after.tag in ("VVN", "CRD", "DT0")
    if word.tag in ("VVN", "VVG") and index:
        return words[index - 1].tag in ("AT0", "DPS", "DT0", "AJ0", "PRP", "PRF", "CRD", "POS")
    return False


def head_of(words: Sequence[Word], end: int) -> tuple[int | None, int | None]:
    """The head of the phrase that ends at `end`, and where its number is that of another word.

    (None, None) where all of it hangs on a preposition that nothing stands in front of.
    """
    share: int | None = None
    head = end
    while True:
        start = phrase_start(words, head)
        if start == 0 or words[start - 1].tag not in ("PRP", "PRF") or (
            words[start - 1].low in OPENS_CLAUSE
        ):  # fmt: skip
            return head, share
        at = left_of_preposition(words, start - 1)
        if at is None:
            late = head - 1 > 0 and words[head].is_noun and words[head - 1].low in ("time", "day")
            return (head, share) if late else (None, None)
        if words[at].low in _SHARES or words[at].lemma in _SHARES:
            share = head if share is None else share
        else:
            share = None
        head = at


def left_of_preposition(words: Sequence[Word], preposition: int) -> int | None:
    """The end of the phrase on which the preposition hangs, participles and objects passed."""
    at = preposition - 1
    for _ in range(4):
        while at >= 0 and (words[at].is_adverb or words[at].tag in ("AVP", "PRP", "PRF")):
            at -= 1
        if at < 0:
            return None
        if is_head(words, at):
            return at
        if words[at].tag in ("VVN", "VVG", "PNP", "AJ0") and at and (
            words[at - 1].is_noun or words[at - 1].tag in ("PRP", "VVN", "AV0", "PNI")
        ):  # fmt: skip
            at -= 1
            continue
        return None
    return None
