"""Info-dropout: the sentence without adjectives and adverbs, which the model must invent.

    the crude wooden bridges always seem of dubious safety   ->  the bridges seem of safety
    the summits are too rounded and symmetrical to give ...  ->  the summits are ... to give ...

Where an adjective is what the sentence says of its subject, three dots keep its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graftlab.recipes.lexicon import lexicon
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.tagging import Word, is_known, tag_sentence, written
from graftlab.recipes.tense import present
from graftlab.recipes.tidy import BLANK, articles, tidied
from graftlab.recipes.wording import reworded
from graftlab.recipes.wordlists import words_of_kind

_LINKING = words_of_kind("linking verb")
_KEPT_ADVERBS = words_of_kind("adverb that stays")
_UNITS = words_of_kind("unit of measure")
_GAP = Word(BLANK)


def drop_description(text: str) -> str:
    """`text` without adjectives and adverbs, paragraph by paragraph."""
    return "\n\n".join(
        " ".join(filter(None, map(_sentence, sentences_of(paragraph))))
        for paragraph in lexicon().spell(text).split("\n\n")
    )


def _sentence(sentence: str) -> str:
    words = present(tag_sentence(sentence))
    kept: list[Word] = []
    index = 0
    while index < len(words):
        end = describing_run(words, index)
        if end == index:
            kept.append(words[index])
            index += 1
            continue
        if _needs_gap(words, index, end, kept):
            kept.append(_GAP)
        elif kept and kept[-1].low in ("a", "an") and words[end : end + 1] and (
            words[end].is_determiner
        ):  # fmt: skip
            kept.pop()  # "a little more each winter"
        elif kept and kept[-1].tag in ("AT0", "PRP", "PRF") and not _noun_follows(words, end):
            last = next((w for w in reversed(words[index:end]) if w.is_adjective), words[end - 1])
            kept.append(last)  # "to a sickly grey"
        elif kept and kept[-1].tag in ("AT0", "DPS") and words[end : end + 1] and (
            words[end].text == ","
        ):  # fmt: skip
            end += 1  # "his slatternly, pallid daughter"
        elif (
            kept
            and kept[-1].low == "as"
            and (words[end - 1].is_adverb or end >= len(words) or words[end].tag == "PUN")
        ):
            # "as seldom as possible": its halves cannot stand alone.
            kept.pop()
            clause = end + 1 < len(words) and words[end + 1].begins_clause
            end += end < len(words) and words[end].low == "as" and not clause
            end = describing_run(words, end)
        if words[index].before == "" and end < len(words) and kept[-1:] != [_GAP]:
            joined = words[end]  # it follows an opening mark now
            words[end] = replace(joined, before="")
        index = end
    return tidied(written(articles(reworded(kept))))


def describing_run(words: Sequence[Word], start: int) -> int:
    """Where the run of adjectives and adverbs that begins at `start` ends; `start` if none does.

    The run takes in the commas and conjunctions between two of them.
    """
    end = start
    while end < len(words):
        if is_description(words, end):
            end += 1
        elif end > start and words[end].low in (",", "and", "or", "but", "yet", "though"):
            after = end + 1
            if after < len(words) and words[after].low in ("and", "or", "but", "yet", "though"):
                after += 1
            if after < len(words) and _is_participle_of(words, end - 1, after):
                return after + 1  # "rare and forbidden books"
            if after >= len(words) or not is_description(words, after):
                break
            if not _same_kind(words, end - 1, after):
                break
            end = after + 1
        else:
            break
    return end


def _is_participle_of(words: Sequence[Word], one: int, other: int) -> bool:
    joined = words[one].is_adjective and words[other].tag in ("VVN", "VVG")
    return joined and other + 1 < len(words) and words[other + 1].is_noun


def _same_kind(words: Sequence[Word], end: int, other: int) -> bool:
    """Whether two descriptions are joined, rather than the clauses in which they stand."""
    if words[end].is_adjective and words[other].is_adverb:
        return other + 1 < len(words) and words[other + 1].is_adjective
    return words[end].is_adjective == words[other].is_adjective


def _noun_follows(words: Sequence[Word], index: int) -> bool:
    while index < len(words) and (words[index].text == "," or is_description(words, index)):
        index += 1
    return index < len(words) and (
        words[index].is_noun
        or words[index].tag in ("CRD", "UNC", "PNI", "ORD", "DT0")
        or (
            words[index].tag in ("VVG", "VVN")
            and any(w.is_noun for w in words[index + 1 : index + 3])
        )
    )


def is_description(words: Sequence[Word], index: int) -> bool:
    """Whether the word describes: an adjective or adverb that the grammar can do without."""
    word = words[index]
    before = words[index - 1] if index else None
    after = words[index + 1] if index + 1 < len(words) else None
    if before is not None and before.low in _UNITS:
        return False  # "two centuries ago", "twelve years old"
    if word.low in _QUANTITIES or _holds_together(before, word, after):
        return False
    if word.is_adverb:
        if before is not None and not before.is_word and word.low in ("yet", "but", "so"):
            return False  # ", yet saw": a conjunction
        if after is not None and after.low == "than":
            return index + 2 < len(words) and is_description(words, index + 2)
        if before is not None and before.tag == "AT0" and _stands_alone(words, index + 1):
            return False  # "a little", when nothing follows that it is little of
        return word.low not in _KEPT_ADVERBS and not (after is not None and after.low == "of")
    if not word.is_adjective:
        # "more than commonly beautiful"
        return word.low == "than" and before is not None and before.low in ("more", "less") and (
            after is not None and (after.is_adjective or after.is_adverb)
        )  # fmt: skip
    if after is not None and after.tag == "AVP":
        return False  # "hushed up" is a verb
    if word.text[0].isupper() and index and (
        not is_known(word.text) or (after is not None and after.text[0].isupper())
    ):  # fmt: skip
        return False  # a name that the tagger does not know; "Round Mountain"
    # "the dead", "the dying": an adjective that is somebody.
    named = before is not None and before.tag in ("AT0", "DPS", "PRP", "PRF")
    return not (named and _stands_alone(words, index + 1))


_QUANTITIES = frozenset({"few", "many", "several"})


def _holds_together(before: Word | None, word: Word, after: Word | None) -> bool:
    """Whether what stands around a small adverb would fall apart without it."""
    behind = after.low if after is not None else "."
    if before is None:
        return after is not None and after.is_finite  # "Then came a halt"
    return (
        (word.low in ("even", "only") and not before.is_word)  # "no one, even those who"
        or (word.low == "then" and behind == "that")  # "it was then that"
        or before.low == "than"  # "louder than ever"
        or (
            before.tag in ("CJS", "PRP") and word.is_adverb and not behind.isalnum()
        )  # "till later"
        or (word.is_adverb and behind in ("him", "them", "me", "us"))  # "stories about him"
        or (word.low == "far" and behind == "from")
        or (word.low == "too" and behind in ("much", "many"))
        or (word.low == "more" and before.is_verb and after is not None and not after.is_word)
    )


def _stands_alone(words: Sequence[Word], after: int) -> bool:
    """Whether no noun follows that an adjective in front of `after` could describe."""
    while after < len(words) and (
        words[after].is_adverb or words[after].low in (",", "and", "or", "but", "yet")
    ):
        after += 1
    if after >= len(words):
        return True
    word = words[after]
    return not (
        word.is_noun or word.is_adjective or word.tag in ("CRD", "DT0", "VVG", "VVN", "UNC", "PNI")
    )


def _needs_gap(words: Sequence[Word], start: int, end: int, kept: Sequence[Word]) -> bool:
    """Whether the sentence falls apart unless something keeps the place of the run."""
    compares = any(word.tag == "AJC" or word.low in ("more", "less") for word in words[start:end])
    behind = [word.low for word in words[end : end + 8]]
    if (
        compares
        and "than" in behind
        and not any(
            word.tag == "AJC" or word.low in ("more", "less")
            for word in words[end : end + behind.index("than")]
        )
    ):
        return True
    governs = words[end - 1].is_adjective and end < len(words) and (
        words[end].low == "of" or words[end].tag == "TO0"
    )  # fmt: skip
    as_as = bool(kept) and kept[-1].low in ("as", "so") and words[end - 1].is_adjective
    as_as = as_as and end < len(words) and words[end].low in ("as", "that")
    concedes = end + 1 < len(words) and words[end].low == "as" and words[end + 1].tag == "PNP"
    concedes = concedes and words[end - 1].is_adjective  # "frightened as he was"
    while_it_is = (
        bool(kept)
        and kept[-1].tag == "CJS"
        and kept[-1].low != "as"
        and words[end - 1].is_adjective
    )
    while_it_is = while_it_is and end < len(words) and not _noun_follows(words, end)
    return governs or as_as or concedes or while_it_is or _is_predicate(words, start, end, kept)


def _is_predicate(words: Sequence[Word], start: int, end: int, kept: Sequence[Word]) -> bool:
    """Whether the run stands behind a linking verb and describes no noun that follows."""
    if not any(word.is_adjective for word in words[start:end]):
        # "the family were downstairs."
        ends = end >= len(words) or words[end].tag == "PUN" or words[end].tag[:2] == "CJ"
        return bool(kept) and kept[-1].tag[:2] == "VB" and ends
    if end < len(words) and (words[end].is_noun or words[end].tag in ("VVG", "VVN", "CRD")):
        return False
    for word in reversed(kept[-4:]):
        if word.is_verb:
            return word.lemma in _LINKING or word.tag[:2] == "VB"
        if word.tag not in ("XX0", "PNP", "AV0", "CJS", "PRP") or word.low not in (
            *("not", "n't", "so", "as", "it", "him", "her", "them", "itself", "himself"),
            *("me", "us", "you", "myself", "themselves", "herself"),
        ):
            return False
    return False
