"""Whether the subject of a verb is one or several, or nobody can say.

There is no parser: the words in front of the verb are read backwards, by their tags. Where two
readings are left the answer is None, so that whoever asks can leave the sentence alone.

    pronoun           he ran; they ran               relative   the men who ran: as "men" is
    joined            he rose and ran: as "rose" has it         the dog and the cat ran: several
    phrase            the smell of the hills spread: "smell"    all of the hills: "hills"
    set apart         the limbs, save for the fur, shook: as if the commas were not there
    turned about      there came cries; below the hill stood a house: what follows the verb
    any other         where all nouns in front of the verb are of one number, that
"""

from __future__ import annotations

from collections.abc import Sequence

from graftlab.recipes.clauses import (
    MAIN_VERBS,
    OPENERS,
    PAUSES,
    clause_start,
    is_side_matter,
    reports,
)
from graftlab.recipes.nounphrases import (
    ALWAYS_SEVERAL,
    OPENS_CLAUSE,
    head_of,
    is_head,
    left_of_preposition,
    noun_number,
    phrase_start,
    pronoun_number,
)
from graftlab.recipes.tagging import Word

_JOINTS = frozenset({"and", "or", "nor", "but", "then", "yet"})
_ASIDE = ("PRP", "VVN", "VVG", "AJ0", "AV0", "DTQ", "PNQ", "CJS", "AT0", "AVQ", "DT0", "DPS", "CJT")


def is_several(words: Sequence[Word], verb: int) -> bool | None:
    """Number of the subject of the finite verb at `verb`; True for several, None if in doubt.

    "I" counts as several, as its verbs have no ending.
    """
    said = _said_by_form(words[verb])
    if said is not None:
        return said
    if words[verb].tag in ("VDD", "VHD") and verb + 1 < len(words):
        behind = pronoun_number(words[verb + 1])  # "nor did they"
        if behind is not None:
            return behind
    end = _before_adverbs(words, verb)
    if end < 0 or words[end].text in PAUSES - {"—"} or _is_there(words, end):
        return _following(words, verb)
    word = words[end]
    if word.tag in ("DTQ", "PNQ", "CJT") or (word.low == "that" and is_head(words, end - 1)):
        found = _antecedent(words, end)
    elif word.low in _JOINTS:
        found = _as_verb_before(words, end)
    elif word.text in (",", "—"):
        found = _around_aside(words, end)
    else:
        found = _phrase(words, end, verb)
    if found is None:
        found = _past_relative(words, end)
    return _by_all_nouns(words, end) if found is None else found


def _said_by_form(word: Word) -> bool | None:
    if word.tag in ("VBZ", "VHZ", "VVZ", "VDZ"):
        return False
    return word.low == "were" if word.tag == "VBD" else None


def _before_adverbs(words: Sequence[Word], verb: int) -> int:
    end = verb - 1
    if end > 0 and words[end].is_adjective and words[end - 1].tag == "PNI":
        end -= 1  # "something hideous had happened"
    while end >= 0 and not _is_there(words, end) and (
        (words[end].is_adverb and words[end].low != "much")
        or words[end].tag in ("XX0", "PNX")
        or (words[end].low == "all" and words[end - 1].tag == "PNP")
    ):  # fmt: skip
        end -= 1
    return end


def _is_there(words: Sequence[Word], index: int) -> bool:
    """The "there" that holds a subject's place, not the one that says where."""
    before = words[index - 1].tag if index else "PUN"
    opens = before[:2] in ("PU", "CJ", "AV") or before in ("NN1", "NN2")
    return words[index].low == "there" and (words[index].tag == "EX0" or opens)


def _following(words: Sequence[Word], verb: int) -> bool | None:
    """The first noun behind the verb: the subject where the sentence is turned about."""
    for index in range(verb + 1, min(verb + 9, len(words))):
        word = words[index]
        if word.is_noun:
            while index + 1 < len(words) and words[index + 1].is_noun:
                index += 1
            joined = index + 1 < len(words) and words[index + 1].low == "and"
            number = noun_number(words, index)
            return number if number or not joined else None
        if word.tag == "PNP":
            return pronoun_number(word)
        if word.tag == "CRD" and words[index + 1].tag == "PRF":
            return noun_number(words, index)  # "there had been five of them"
        inner = word.is_determiner or word.is_adjective or word.is_adverb
        passed = word.tag in ("AVP", "VVG", "VVN", "TO0", "VBI", "VVI", "VBN")
        if not inner and not passed and word.low not in (",", "and"):
            return None
    return None


def _antecedent(words: Sequence[Word], relative: int) -> bool | None:
    """What "who", "which" and "that" take up: the noun phrase before."""
    end = relative - 1
    if end >= 0 and words[end].text == ",":
        end -= 1
    if end < 0 or not is_head(words, end):
        return False if words[relative].low in ("what", "whatever") else None
    if words[end].low in ("all", "some", "more", "any", "most"):
        return None
    own = noun_number(words, end)
    start = phrase_start(words, end)
    if start and words[start - 1].low == "and" and is_head(words, start - 2):
        return own or None
    return own  # "a legion of birds that cried": the nearest noun, as most would say


def _as_verb_before(words: Sequence[Word], joint: int) -> bool | None:
    """Behind "and" as the nearest verb; behind ", and" as the main verb of the sentence."""
    if joint and words[joint - 1].text in (",", ";", "—"):
        return _main_verb(words, joint - 1)
    for index in range(joint - 1, -1, -1):
        if words[index].text in PAUSES:
            return None
        if words[index].tag in MAIN_VERBS:
            return is_several(words, index)
    return None


def _main_verb(words: Sequence[Word], end: int) -> bool | None:
    """Number of the nearest verb that no conjunction or relative has made a side matter."""
    for index in range(end - 1, -1, -1):
        if words[index].tag in MAIN_VERBS:
            fresh = index > 1 and words[index - 2].is_noun  # "as they passed the house | they ran"
            if fresh and (number := pronoun_number(words[index - 1])) is not None:
                return number
            if not is_side_matter(words, index):
                return is_several(words, _reported_by(words, index))
    return None


def _reported_by(words: Sequence[Word], verb: int) -> int:
    """Of "they knew something had happened" the first verb, else the one at `verb`."""
    for index in range(verb - 1, -1, -1):
        if words[index].tag == "PUN" or words[index].tag[:2] == "CJ":
            break
        if words[index].is_finite:
            return index if reports(words[index]) else verb
    return verb


def _around_aside(words: Sequence[Word], pause: int) -> bool | None:
    """ "The doctor, though, shook": the subject stands in front of the nearest aside."""
    mark = words[pause].text
    for index in range(pause - 1, 0, -1):
        if words[index].text in PAUSES - {mark}:
            return None
        if words[index].text != mark:
            continue
        aside = words[index + 1 : pause]
        if not aside or aside[0].low == "and":
            return _listed(words, index)
        side = (
            aside[0].tag in _ASIDE
            or aside[0].low in ("save", "except")
            or any(w.tag in OPENERS for w in aside[:4])
        )
        alone = not any(word.is_finite for word in aside) or any(w.tag in OPENERS for w in aside)
        before = words[index - 1]
        if before.tag == "PNP" and (number := pronoun_number(before)) is not None:
            return number
        if not alone:
            return _main_verb(words, pause)  # "he rose, took his hat, and left"
        if side and alone and is_head(words, index - 1):
            return _phrase(words, index - 1, index)
    return None


def _listed(words: Sequence[Word], comma: int) -> bool | None:
    """ "the men from Arkham, A, B, and C, climbed": several, where no verb came before."""
    start = comma
    while start > 0 and words[start - 1].text not in PAUSES - {"—"}:
        start -= 1
    front = words[start:comma]
    if any(word.is_finite for word in front) or not front or front[0].tag in ("PRP", "AV0"):
        return None
    return True


def _phrase(words: Sequence[Word], end: int, verb: int) -> bool | None:
    """Number of the noun phrase that ends at `end`, with all that hangs on its head."""
    if words[end].tag == "PNP":
        number = _pronoun(words, end)
        at = left_of_preposition(words, end - 1) if number is None and end else None
        hangs = at is not None and words[end - 1].tag in ("PRP", "PRF")  # "the dates on them"
        return _phrase(words, at, verb) if hangs and at is not None else number
    if not is_head(words, end):
        return None
    head, share = head_of(words, end)
    if head is None and words[end].low in ALWAYS_SEVERAL:
        return True  # "from bits of lumber people guessed"
    if head is None:
        start = clause_start(words, end + 1)
        if start and words[start - 1].tag == "CJC" and words[start].tag == "PRP":
            return _main_verb(words, start - 1)  # "he slept, but in the night awoke"
        number = _following(words, verb)  # "below the hill stood a house"
        return number if words[verb].lemma in ("stand", "come", "lie", "rise", "hang") else None
    own = noun_number(words, share if share is not None else head)
    start = phrase_start(words, head)
    before = words[start - 1] if start else None
    if before is not None and before.low in OPENS_CLAUSE and before.tag in ("PRP", "PRF"):
        outer = _phrase(words, start - 2, verb) if is_head(words, start - 2) else own
        return own if outer in (own, None) else None
    if before is None or own:
        return own
    if before.low in ("and", ",") and start >= 2:
        return _joined(words, start - 1)
    if before.low in ("or", "nor") or before.tag in OPENERS or before.text in PAUSES:
        return own
    if before.is_verb:
        return own if reports(before) else None
    return own


def _pronoun(words: Sequence[Word], index: int) -> bool | None:
    word, before = words[index], words[index - 1] if index else None
    if before is None or word.low not in ("it", "you"):
        return pronoun_number(word)
    if (before.is_verb and not reports(before)) or before.tag in ("PRP", "PRF"):
        return None  # "those who took it heard"
    return pronoun_number(word)


def _past_relative(words: Sequence[Word], end: int) -> bool | None:
    """ "those who took it heard": the verb of "those", behind a clause with a verb of its own."""
    verbs = 0
    for index in range(end, 0, -1):
        word = words[index]
        if word.tag == "PUN" or word.tag in ("CJS", "AVQ", "CJC"):
            return None
        verbs += word.tag in MAIN_VERBS
        if word.tag in ("PNQ", "DTQ", "CJT"):
            return _phrase(words, index - 1, index) if verbs == 1 else None
    return None


def _joined(words: Sequence[Word], joint: int) -> bool | None:
    """One noun behind "and" or a comma: several if nouns are joined, one if clauses are."""
    start = joint
    while (
        start > 0
        and words[start - 1].text not in PAUSES
        and (words[start - 1].tag not in OPENERS or words[start - 1].low == "than")
    ):
        start -= 1
    front = words[start:joint]
    if not front or any(word.is_finite for word in front):
        return False
    if words[joint].low == "and" and words[joint - 1].text == ",":
        return True if sum(word.text == "," for word in front) > 1 else None
    fronted = front[0].tag in ("PRP", "AV0", "VVG", "VVN", "TO0", "CJC")
    if words[joint].text == ",":
        return False if fronted or (start and words[start - 1].tag in OPENERS) else None
    inside = any(word.tag in ("PRP", "PRF") for word in front)
    return None if inside else True


def _by_all_nouns(words: Sequence[Word], end: int) -> bool | None:
    """The number that every noun and subject pronoun in front has; None where they differ."""
    found: set[bool | None] = set()
    joined = False
    for index in range(end, -1, -1):
        word = words[index]
        if word.text in PAUSES - {"—"}:
            break
        if word.is_noun and not (index + 1 < len(words) and words[index + 1].is_noun):
            found.add(noun_number(words, index))
        elif word.tag == "PNP" and pronoun_number(word) is not None:
            found.add(_pronoun(words, index))
        joined = joined or word.low == "and"
    if len(found) != 1 or None in found:
        return None
    (number,) = found
    return None if joined and not number else number
