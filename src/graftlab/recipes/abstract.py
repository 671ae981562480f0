"""Abstract: every noun replaced by the kind of thing it names, for the model to infer which.

    Old Whateley drove his sleigh through the snow into Dunwich Village
    [PERSON] drove his [THING] through the [THING] into [PLACE]

    the dogs of the farms         ->  the [CREATURE]s of the [PLACE]s

Tenses stay: the placeholders leave too little to be copied.
A name's kind is what most signs in the text say: titles, given names, what stands before and after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from graftlab.recipes.lexicon import lexicon
from graftlab.recipes.nounphrases import ALWAYS_SEVERAL
from graftlab.recipes.nouns import PERSON, PLACE, TIME, kind_of_noun, kinds
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.tagging import Sentence, Word, tag_sentence, written
from graftlab.recipes.tidy import articles, tidied
from graftlab.recipes.wording import reworded
from graftlab.recipes.wordlists import words_of_kind

_TITLES = words_of_kind("title")
_GIVEN = words_of_kind("given name")
_PLACE_WORDS = words_of_kind("word of a place name")
_PLACE_BEFORE = words_of_kind("before a place")
_PLACE_ENDINGS = tuple(sorted(words_of_kind("ending of a place name")))
_MONTHS = words_of_kind("name of a time")
_SAYING = words_of_kind("what persons do")
_NATIONS = words_of_kind("of a nation")
_NOT_NOUNS = words_of_kind("noun that stays")


def replace_nouns(text: str) -> str:
    """`text` with typed placeholders for its nouns, paragraph by paragraph."""
    paragraphs = [
        [tag_sentence(sentence) for sentence in sentences_of(paragraph)]
        for paragraph in lexicon().spell(text).split("\n\n")
    ]
    names = _kinds_of_names([sentence for found in paragraphs for sentence in found])
    return "\n\n".join(
        " ".join(filter(None, (_sentence(sentence, names) for sentence in paragraph)))
        for paragraph in paragraphs
    )


def _sentence(words: Sentence, names: dict[str, str]) -> str:
    words = tuple(reworded(words))
    kept: list[Word] = []
    index = 0
    while index < len(words):
        end = _name_end(words, index)
        if end == index and words[index].text[0].isupper() and words[index].low in names:
            end += 1  # a name that the tagger did not know at the head of its sentence
        if end > index:
            kind = _kind_of_name(words[index:end], names)
            several = _are_several(words, index, end)
            if (after := _noun_end(words, end)) > end and not words[end].is_name:
                # "the Aylesbury pike" is a pike.
                end, kind = after, kind_of_noun(words[after - 1])
                several = words[end - 1].tag == "NN2" or words[end - 1].low in ALWAYS_SEVERAL
        elif (end := _noun_end(words, index)) > index:
            kind = kind_of_noun(words[end - 1])
            several = words[end - 1].tag == "NN2" or words[end - 1].low in ALWAYS_SEVERAL
        elif (
            words[index].tag == "CRD"
            and words[index].text.isdigit()
            and len(words[index].text) == 4
        ):
            end, kind, several = index + 1, TIME, False
        else:
            mark = words[index].low == "'s" and bool(kept) and kept[-1].text.endswith("]s")
            kept.append(replace(words[index], text="'") if mark else words[index])
            index += 1
            continue
        ending, tag = ("s", "NN2") if several else ("", "NN1")
        kept.append(Word(f"[{kind}]{ending}", tag, before=words[index].before))
        index = end
    return tidied(written(articles(kept)))


def _are_several(words: Sentence, start: int, end: int) -> bool:
    """ "the Whateleys", and nobody else whose name ends in s."""
    name = words[end - 1].low
    article = start > 0 and words[start - 1].low == "the"
    return article and name.endswith("s") and name not in _PLACE_WORDS


def _noun_end(words: Sentence, index: int) -> int:
    """Where the run of common nouns that begins at `index` ends."""
    end = index
    while end < len(words) and words[end].is_noun and words[end].low not in _NOT_NOUNS | _NATIONS:
        if end > index and (words[end].is_name or words[end].low == "people"):
            break  # "since its completion people noticed"
        end += 1
    return end


def _name_end(words: Sentence, index: int) -> int:
    """Where the name that begins at `index` ends: capitals, with "Dean's Corners" as one."""
    if not _in_name(words, index):
        return index
    end = index + 1
    while end < len(words):
        if _in_name(words, end):
            end += 1
        elif words[end].low == "'s" and end + 1 < len(words) and _in_name(words, end + 1):
            end += 2
        else:
            break
    return end


def _in_name(words: Sentence, index: int) -> bool:
    word = words[index]
    if not word.text[0].isupper() or not word.text[0].isalpha() or word.low in ("i", "o", "ye"):
        return False
    if word.low in _NATIONS:
        return False
    if word.is_name or (word.low in _TITLES | _GIVEN and index):
        return True
    before = words[index - 1] if index else None
    starts = before is None or (before.tag == "PUN" and before.text[-1] in ".!?:;\"'(—[")
    if starts:
        follows = words[index + 1] if index + 1 < len(words) else None
        titled = word.low in _TITLES | _GIVEN
        return bool(titled and follows is not None and follows.text[0].isupper())
    return word.is_noun or word.is_adjective


def _kind_of_name(words: Sequence[Word], names: dict[str, str]) -> str:
    if words[-1].low in _PLACE_WORDS:
        return PLACE
    if words[0].low in _TITLES | _GIVEN:
        return PERSON
    known = Counter(names[word.low] for word in words if word.low in names)
    if known:
        return known.most_common(1)[0][0]
    if any(word.low in _MONTHS for word in words):
        return TIME
    if words[-1].low.endswith(_PLACE_ENDINGS):
        return PLACE
    return kind_of_noun(words[-1]) if words[-1].low in kinds() else PERSON


def _kinds_of_names(sentences: Sequence[Sentence]) -> dict[str, str]:
    """For each word of a name, the kind that most of its places in the text speak for."""
    votes: dict[str, Counter[str]] = {}
    for words, start, end in _names(sentences):
        for kind in _signs(words, start, end):
            for word in words[start:end]:
                votes.setdefault(word.low, Counter())[kind] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in sorted(votes.items())}


def _names(sentences: Sequence[Sentence]) -> Iterator[tuple[Sentence, int, int]]:
    for words in sentences:
        index = 0
        while index < len(words):
            end = _name_end(words, index)
            if end > index:
                yield words, index, end
            index = max(end, index + 1)


def _signs(words: Sentence, start: int, end: int) -> Iterator[str]:
    """What the surroundings of one name say it is."""
    name = words[start:end]
    if name[-1].low in _PLACE_WORDS:
        yield PLACE
        return
    if name[0].low in _TITLES or any(word.low in _GIVEN for word in name):
        yield from (PERSON, PERSON)
    if any(word.low in _MONTHS for word in name):
        yield from (TIME, TIME)
    before = words[start - 1].low if start else ""
    # "the Miskatonic" is no person; "the Whateleys" are.
    if before in _PLACE_BEFORE or (before == "the" and not name[-1].low.endswith("s")):
        yield PLACE
    after = words[end] if end < len(words) else None
    if after is not None and (after.low == "'s" or after.lemma in _SAYING):
        yield PERSON
