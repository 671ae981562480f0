"""What all three variations do to the wording, so that the output cannot be copied out of them.

ornate words            beheld, abode, tenebrous       ->  saw, house, dark      (plain.txt)
what belongs to what    the eyes of the dog            ->  the dog's eyes, and the other way
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graftlab.recipes.lexicon import lexicon, renamed
from graftlab.recipes.nouns import kind_of_noun
from graftlab.recipes.tagging import Word

_PARTITIVE = frozenset(
    {"band", "couple", "course", "dozen", "group", "half", "kind", "lot", "midst", "number"}
    | {"one", "pair", "part", "piece", "rest", "sort", "time", "way"}
)


def reworded(words: Sequence[Word]) -> list[Word]:
    """One sentence in plain words."""
    return owned(_plainly(words))


def _plainly(words: Sequence[Word]) -> list[Word]:
    known = lexicon()
    done: list[Word] = []
    for index, word in enumerate(words):
        plain = known.plain(word)
        after = words[index + 1] if index + 1 < len(words) else None
        particle = after is not None and after.tag == "AVP"
        aside = word.low == "though" and (
            (after is not None and not after.is_word)
            or (index > 0 and words[index - 1].low in ("as", "even"))
        )
        bare = word.is_adjective and index and words[index - 1].tag in ("PRP", "AT0")
        bare = bare and not (after is not None and (after.is_noun or after.is_adjective))
        if (
            plain is None or aside or bare or (" " in plain and particle)
        ):  # "seek out" is more than "seek"
            done.append(word)
        elif plain:
            twice = after is not None and plain.endswith(f" {after.low}")
            done.extend(renamed(word, plain.rpartition(" ")[0] if twice else plain))
    return done


def owned(words: list[Word]) -> list[Word]:
    """`the A of the B` as `the B's A`, where both are single nouns."""
    done: list[Word] = []
    index = 0
    while index < len(words):
        found = _possession(words, index)
        if found is None:
            turned = _owner_first(words, index)
            done += turned or [words[index]]
            index += len(turned) - 1 if turned else 1  # one word more than before
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


def _owner_first(words: Sequence[Word], index: int) -> list[Word]:
    """ "the sufferer's last breath" as "the last breath of the sufferer"; else nothing."""
    end = index
    if words[index].tag in ("AT0", "DPS") and words[index].low not in ("a", "an", "no"):
        end += 1
    named = end == index
    while end < len(words) and words[end].is_name and named:
        end += 1
    if not named and end < len(words) and words[end].tag == "NN1":
        end += 1
    if end == index + (not named) or end >= len(words) or words[end].text != "'s":
        return []
    before = words[index - 1] if index else None
    if before is not None and (before.is_noun or before.is_adjective or before.is_determiner):
        return []
    owner, thing_end = words[index:end], _noun_at(words, end + 1)
    if thing_end is None or words[end].tag != "POS" or words[thing_end - 1].text[0].isupper():
        return []
    if not named and kind_of_noun(owner[-1]) not in ("PERSON", "CREATURE"):
        return []
    after = words[thing_end] if thing_end < len(words) else None
    if after is not None and (after.is_noun or after.tag in ("PRF", "POS", "VVG", "CJC")):
        return []
    thing = words[end + 1 : thing_end]
    at_home = kind_of_noun(thing[-1]) == "PLACE"  # "at Corey's place"
    if at_home or thing[0].low == "own" or thing[-1].low in ("sake", "behalf"):
        return []
    first = replace(owner[0], before=" ")
    if index == 0 and not owner[0].is_name:
        first = replace(first, text=first.low)
    the = Word("The" if index == 0 else "the", "AT0", "the", words[index].before)
    return [the, *thing, Word("of", "PRF", "of"), first, *owner[1:]]


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
    if owner.is_name and kind_of_noun(words[middle - 1]) == "PLACE":
        return None  # "the township of Dunwich" is Dunwich
    if not owner.is_name and kind_of_noun(owner) not in ("PERSON", "PLACE", "CREATURE"):
        return None  # "the average's lowness" is nobody's English
    if end + 1 < len(words) and words[end + 1].tag == "DTQ":
        return None  # "the feet of the hills among which it rises"
    if after is not None and (
        after.is_noun
        or after.tag in ("ORD", "CRD", "PRF", "POS", "DTQ", "PNQ", "CJT")
        or after.low in ("who", "and", "from", "with")
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
