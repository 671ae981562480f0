"""What all three variations do to the wording, so that the output cannot be copied out of them.

ornate words            beheld, abode, tenebrous       ->  saw, house, dark      (plain.txt)
the present tense       the dogs of the village barked ->  ... bark, as reports are told
what belongs to what    the ruts of the road           ->  the road's ruts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graftlab.recipes.lexicon import lexicon, renamed, third_person
from graftlab.recipes.nouns import kind_of_noun
from graftlab.recipes.tagging import Word
from graftlab.recipes.wordlists import words_of_kind

_PARTITIVE = frozenset(
    {"band", "couple", "course", "dozen", "group", "half", "kind", "lot", "midst", "number"}
    | {"one", "pair", "part", "piece", "rest", "sort", "time", "way"}
)
_PLURAL_PRONOUNS = frozenset({"i", "you", "we", "they"})
_SINGULAR_PRONOUNS = frozenset({"he", "she", "it", "this", "that", "each"})
_PAST = ("VVD", "VBD", "VHD", "VDD")
_IRREGULAR_PAST = words_of_kind("irregular past")
_MODALS = {"could": "can", "might": "may"}


def reworded(words: Sequence[Word]) -> list[Word]:
    """One sentence in plain words, told in the present."""
    return owned(_plainly(present(words)))


def _plainly(words: Sequence[Word]) -> list[Word]:
    known = lexicon()
    done: list[Word] = []
    for word in words:
        plain = known.plain(word)
        if plain is None:
            done.append(word)
        elif plain:
            done.extend(renamed(word, plain))
    return done


def owned(words: list[Word]) -> list[Word]:
    """`the A of the B` as `the B's A`, where both are single nouns."""
    done: list[Word] = []
    index = 0
    while index < len(words):
        found = _possession(words, index)
        if found is None:
            done.append(words[index])
            index += 1
            continue
        middle, end = found
        thing, owner = words[index + 1 : middle], words[middle + 1 : end]
        mark = "'" if owner[-1].tag == "NN2" and owner[-1].low.endswith("s") else "'s"
        capital = words[index].text[0].isupper()
        first = owner[0].text.capitalize() if capital and owner[0].low.isalpha() else owner[0].text
        done.append(replace(owner[0], text=first, before=words[index].before))
        done += [*owner[1:], Word(mark, "POS", before=""), *thing]
        index = end
    return done


def _possession(words: Sequence[Word], index: int) -> tuple[int, int] | None:
    """Of `the A of the B` that begins at `index`, where "of" stands and where it ends."""
    if words[index].low != "the":
        return None
    middle = _noun_at(words, index + 1)
    if middle is None or middle >= len(words) or words[middle].low != "of":
        return None
    if words[middle - 1].lemma in _PARTITIVE:
        return None
    start = middle + 1
    if start >= len(words):
        return None
    if words[start].is_name:
        end = start + 1
        while end < len(words) and words[end].is_name:
            end += 1
    elif words[start].tag in ("DPS", "AT0") and words[start].low not in ("a", "an", "no"):
        found = _noun_at(words, start + 1)
        if found is None:
            return None
        end = found
    else:
        return None
    after = words[end] if end < len(words) else None
    owner = words[end - 1]
    if not owner.is_name and kind_of_noun(owner) not in ("PERSON", "PLACE", "CREATURE"):
        return None  # "the average's lowness" is nobody's English
    if after is not None and (
        after.is_noun
        or after.tag in ("PRF", "POS", "DTQ", "PNQ", "CJT")
        or after.low in ("who", "and")
    ):
        return None
    return middle, end


def _noun_at(words: Sequence[Word], index: int) -> int | None:
    """Past the one common noun that stands at `index`, behind adjectives; None if none does."""
    while index < len(words) and words[index].is_adjective:
        index += 1
    if index >= len(words) or not words[index].is_noun or words[index].is_name:
        return None
    return index + 1


def present(words: Sequence[Word]) -> list[Word]:
    """Past tenses as present ones, each as its subject wants."""
    teller = _Subjects()
    told = []
    for index, word in enumerate(words):
        if _is_told(words, index, teller):
            told.append(_told(word, teller))
        elif word.tag == "VVD" and teller.has_verb:
            told.append(replace(word, tag="VVN"))  # "the figures seen there"
        else:
            told.append(word)
        teller.read(word, words[index - 1] if index else None)
    return told


def _is_told(words: Sequence[Word], index: int, teller: _Subjects) -> bool:
    """Whether the word is the verb of its clause; "the figures seen there" has one already."""
    word = words[index]
    if word.low in _MODALS and word.tag == "VM0":
        return True
    if word.tag in _PAST and teller.has_verb:
        teller.leave_relative()
    near = [other.low for other in words[max(0, index - 6) : index]]
    wish = "if" in near or "wish" in near or "as though" in " ".join(near)
    return word.tag in _PAST and word.text[0] != "'" and not teller.has_verb and not wish


def _told(word: Word, teller: _Subjects) -> Word:
    if word.low in _MODALS:
        return replace(word, text=_like(_MODALS[word.low], word))
    if word.tag == "VBD":
        said = "are" if word.low == "were" else "am" if teller.is_i else "is"
        return replace(word, text=_like(said, word), tag="VBB" if said == "are" else "VBZ")
    if word.tag == "VHD":
        said = "have" if teller.plural else "has"
    elif word.tag == "VDD":
        said = "do" if teller.plural else "does"
    elif not (word.low.endswith("ed") or word.low in _IRREGULAR_PAST):
        return word  # the tagger guessed
    else:
        said = word.lemma if teller.plural else third_person(word.lemma)
    ending = "B" if teller.plural else "Z"
    return replace(word, text=_like(said, word), tag=word.tag[:2] + ending)


def _like(said: str, word: Word) -> str:
    return said.capitalize() if word.text[0].isupper() else said


class _Subjects:
    """Follows a sentence from left to right: who is told of, one or several."""

    def __init__(self) -> None:
        self.plural = self.is_i = self.has_verb = False
        self._open = True  # a clause has begun and its subject may come
        self._taken = self._joined = False  # a subject has come; "and" after it
        self._inside = False  # within a phrase that a preposition opened
        self._last_plural = False  # of the last noun, which "who" and "which" take up
        self._outer: tuple[bool, bool] | None = None  # the subject that waits for its verb

    def read(self, word: Word, before: Word | None) -> None:
        if word.tag[:2] == "CJ" or word.tag in ("PUN", "AVQ"):
            # "across the street and lawn": still within the phrase
            self._inside = self._inside and word.tag == "CJC"
            self._joined = word.low == "and" and self._taken
            self._open = True
            self.has_verb = self.has_verb and word.low == ","
            if word.low == "and" and before is not None and before.is_noun:
                self._last_plural = True
            return
        if word.tag in ("DTQ", "PNQ"):
            self._outer = None if self.has_verb else (self.plural, self.is_i)
            self.plural, self.is_i, self.has_verb = self._last_plural, False, False
            self._open, self._inside = True, False
            return
        if word.is_verb:
            self._open = self._inside = self._taken = self._joined = False
            self.has_verb = self.has_verb or (word.is_finite and word.tag[1] != "M")
            return
        if word.tag in ("PRP", "PRF", "TO0"):
            self._inside = True
            return
        starts = word.tag in ("AT0", "DPS") and before is not None and before.is_noun
        if word.tag in ("PNP", "PNI", "EX0") or starts:
            self._inside = False
        self._take(word, before)

    def leave_relative(self) -> None:
        """Behind "those who took them", go on with "those"."""
        if self._outer is not None:
            (self.plural, self.is_i), self._outer, self.has_verb = self._outer, None, False

    def _take(self, word: Word, before: Word | None) -> None:
        """The word as a subject, if it can be one."""
        number = _number(word, before)
        if number is None:
            return
        self._last_plural = number
        if self._inside or not self._open:
            if not self._inside and word.tag == "PNP":
                self.plural, self.is_i = number, word.text == "I"
            elif word.is_noun and before is not None and before.is_noun and not self._inside:
                self.plural = number  # the last noun of "house door" is the head
            return
        self.plural, self._taken = number or self._joined, True
        self.is_i, self._open = word.text == "I", word.tag in ("DT0", "CRD")
        if word.tag in ("PNP", "PNI") or word.is_noun:
            self.has_verb = False


def _number(word: Word, before: Word | None) -> bool | None:
    """True for several, False for one, None for a word that is nobody."""
    if word.tag == "PNP":
        if word.low in _PLURAL_PRONOUNS:
            return True
        return False if word.low in _SINGULAR_PRONOUNS else None
    if word.tag == "PNI":
        return False
    if word.tag == "CRD" and not word.text[0].isdigit():
        return word.low != "one"
    if word.tag == "DT0" and word.low in ("these", "those", "many", "both", "few", "some"):
        return True
    if word.is_name:
        return before is not None and before.low == "the" and word.low.endswith("s")
    return word.tag in ("NN2", "NN0") if word.is_noun else None
