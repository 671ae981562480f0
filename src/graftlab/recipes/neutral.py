"""The neutral rewrite: what happens, in plain words and short sentences.

phrases                 in order to, 'twas             ->  to, it was         (plain.txt)
tense                   the present, where that is safe                      (tense.py)
sentences               ended at semicolons, dashes, ", and he ...", ", which ..."
what stands in front    When it rains, the road floods.  ->  ... when it rains.
decoration              similes, adverbs, all but one of a row of adjectives: gone (shorter.py)
ornate words            beheld, abode, tenebrous       ->  saw, house, dark  (wording.py)
everyday phrasing       it is not, bones and skulls    ->  it isn't, skulls and bones (everyday.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graftlab.recipes.clauses import is_side_matter
from graftlab.recipes.everyday import in_everyday_words
from graftlab.recipes.lexicon import lexicon
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.shorter import without_adverbs, without_rows, without_similes
from graftlab.recipes.tagging import Word, tag_sentence, written
from graftlab.recipes.tense import present
from graftlab.recipes.tidy import articles, tidied
from graftlab.recipes.wording import reworded

_JOINTS = {"and": "", "while": "", "whilst": "", "but": "But", "yet": "But", "though": "But",
           "although": "But", "so": "So", "for": ""}  # fmt: skip
_PLURAL = ("VBB", "VHB", "VDB", "VVB")
_STOP = Word(".", "PUN", before="")
_COMMA = Word(",", "PUN", before="")


def plain_text(text: str) -> str:
    """`text` told plainly, paragraph by paragraph."""
    return "\n\n".join(
        " ".join(
            filter(
                None,
                (
                    _finished(clause)
                    for sentence in sentences_of(lexicon().spell(paragraph))
                    for clause in _clauses(present(tag_sentence(sentence)))
                ),
            )
        )
        for paragraph in text.split("\n\n")
    )


def _finished(clause: Sequence[Word]) -> str:
    told = [
        replace(word, text="that", tag="DTQ") if _restricts(clause, index) else word
        for index, word in enumerate(clause)
    ]
    told = without_similes(told)
    words = without_rows(without_adverbs(_front_last(told)))
    return tidied(written(articles(in_everyday_words(reworded(words)))))


def _clauses(words: Sequence[Word]) -> list[list[Word]]:
    """One sentence as several, wherever what follows a joint can stand alone."""
    clauses: list[list[Word]] = [[]]
    index = 0
    while index < len(words):
        word, rest = words[index], words[index + 1 :]
        opening = _opening(word, rest, done=clauses[-1])
        if opening is None:
            if word.text == "—" or (word.text == ";" and not _has_verb(rest)):
                word = _COMMA
            elif clauses[-1] and clauses[-1][-1] is _COMMA:
                word = replace(word, before=" ")  # there is none behind a dash
            clauses[-1].append(word)
            index += 1
            continue
        first, skipped = opening
        clauses[-1].append(_STOP)
        clauses.append(first)
        index += 1 + skipped
    return clauses


def _has_verb(words: Sequence[Word]) -> bool:
    """Whether a verb stands in front of the next pause: behind a comma it would be spliced."""
    for word in words:
        if word.text in (";", "—", ":"):
            return False
        if word.is_finite:
            return True
    return False


Opening = tuple[list[Word], int]
"""How a new sentence begins, and how many of the words to come that stands for."""


def _opening(word: Word, rest: Sequence[Word], *, done: Sequence[Word]) -> Opening | None:
    """The sentence that begins where `word` ends one; None where no sentence may end."""
    if not _is_whole(done) or not rest:
        return None
    return (
        _with_subject_again(word, rest, done=done)
        or _with_pronoun(word, rest, done=done)
        or _with_subject(word, rest, done=done)
    )


def _with_subject_again(
    word: Word, rest: Sequence[Word], *, done: Sequence[Word]
) -> Opening | None:
    """ "He rose and left" as "He rose. He left"."""
    comma = word.text == "," and rest[0].low == "and"
    if word.low != "and" and not comma:
        return None
    verb = rest[comma] if len(rest) > comma else None
    if verb is None or verb.tag not in ("VVD", "VVZ", "VBD", "VHD"):
        return None
    last = next((i for i in range(len(done) - 1, -1, -1) if done[i].is_finite), None)
    if last is not None and is_side_matter(done, last):
        return None  # "a sleeper who turns over and turns back"
    subject = _short_subject(done)
    return (subject, int(comma)) if subject else None


def _with_pronoun(word: Word, rest: Sequence[Word], *, done: Sequence[Word]) -> Opening | None:
    """ ", which was empty" as "It was empty"."""
    if word.text not in (",", ";") or rest[0].low != "which" or len(rest) < 2:
        return None
    verb = rest[2] if rest[1].is_adverb and len(rest) > 2 else rest[1]
    last = all(other.text not in (",", ";", "—") for other in rest)
    if not (verb.is_finite and last and done[-1].is_noun):
        return None
    many = verb.tag in _PLURAL or done[-1].tag == "NN2"
    return [Word("They" if many else "It", "PNP")], 1


def _with_subject(word: Word, rest: Sequence[Word], *, done: Sequence[Word]) -> Opening | None:
    """ "; and the door fell" as "The door fell"."""
    if word.text not in (";", "—", ","):
        return None
    joint = rest[0].low in _JOINTS
    if joint and word.text == "," and (_is_row(done) or _is_list(done)):
        return None
    if rest[joint:] and rest[joint].low == "such":
        return None  # "—such a noise as he had never heard"
    if (word.text == "," and not joint) or not _can_stand(rest[joint:]):
        return None
    said = _JOINTS[rest[0].low] if joint else ""
    return ([Word(said, "CJC")] if said else []), int(joint)


def _is_list(words: Sequence[Word]) -> bool:
    """ "a great snapping, crashing": one more of them follows, not a clause."""
    last = max((index for index, word in enumerate(words) if word.text == ","), default=-1)
    item = words[last + 1 :]
    return last >= 0 and len(item) < 4 and not any(word.is_verb and word.is_finite for word in item)


def _is_row(words: Sequence[Word]) -> bool:
    """ "The books were sold, the house was let": the last of a row of clauses keeps its "and"."""
    last = max((index for index, word in enumerate(words) if word.text == ","), default=0)
    side = words[0].tag in ("CJS", "AVQ", "PRP") or words[0].low == "as"
    behind = words[last + 1 :]
    starts = bool(behind) and (
        behind[0].begins_clause or behind[0].is_noun or behind[0].is_adjective
    )
    clauses = (words[:last], behind)
    return not side and starts and all(any(w.is_finite for w in part) for part in clauses)


def _is_whole(words: Sequence[Word]) -> bool:
    """Whether the words so far are a sentence: a verb, and no clause that waits for another."""
    first = words[1 if len(words) > 1 and words[0].tag == "CJC" else 0] if words else _STOP
    waits = first.tag in ("CJS", "AVQ", "PRP") or first.low in ("if", "as")
    if waits:  # "When the curate came, nobody knew": over as soon as the second clause is
        pauses = [index for index, word in enumerate(words) if word.text == ","]
        main = words[pauses[-1] + 1 :] if pauses else []
        waits = not (main and main[0].begins_clause and any(word.is_finite for word in main))
    return not waits and len(words) > 4 and any(word.is_finite for word in words)


def _short_subject(words: Sequence[Word]) -> list[Word]:
    """The subject with which a sentence begins, where it is short enough to be said again."""
    end = next((index for index, word in enumerate(words) if word.is_finite), 0)
    subject = list(words[:end])
    if 0 < end <= 3 and all(word.is_noun or word.tag in ("PNP", "AT0", "PNI") for word in subject):
        if all(word.is_name for word in subject):
            subject = subject[-1:]  # "Earl Sawyer went. Sawyer called."
        return [replace(subject[0], before=" "), *subject[1:]]
    return []


def _can_stand(words: Sequence[Word]) -> bool:
    """Whether a sentence may begin here: a subject, with its verb before the next pause."""
    if not words or not (words[0].begins_clause or words[0].is_noun or words[0].is_adjective):
        return False
    for word in words[:12]:
        if word.text in (",", ";", "—", ":") or word.tag in ("DTQ", "PNQ", "CJT"):
            return False
        if word.is_finite:
            return True
    return False


def _front_last(words: list[Word]) -> list[Word]:
    """A clause or phrase of time and place in front of its sentence, put behind it."""
    commas = [index for index, word in enumerate(words) if word.text in (",", ";", ":", "—")]
    if len(commas) != 1 or not words or words[-1].text != "." or words[commas[0]].text != ",":
        return words
    front, rest = words[: commas[0]], words[commas[0] + 1 : -1]
    clause = front[0].tag == "CJS" or front[0].low in ("when", "where", "while", "if", "as")
    phrase = front[0].tag == "PRP" and not any(word.is_verb for word in front) and len(front) < 9
    stands = bool(rest) and rest[0].begins_clause and rest[0].tag != "PNP" and len(rest) > 3
    if not (clause or phrase) or not stands:
        return words
    first = front[0] if front[0].is_name else replace(front[0], text=front[0].low)
    head = replace(rest[0], before="")
    return [head, *rest[1:], replace(first, before=" "), *front[1:], words[-1]]


def _restricts(words: Sequence[Word], index: int) -> bool:
    """Whether this is the "which" of "the book which he read"."""
    if words[index].low != "which" or index == 0:
        return False
    before = words[index - 1]
    if index + 1 < len(words) and words[index + 1].low == "that":
        return False
    # "that he read, and which were old": the second as the first.
    again = before.low == "and" and any(word.low == "which" for word in words[:index])
    return before.is_noun or again
