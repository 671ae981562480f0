"""Inputs that are broken on purpose: what a passage names and does, in order, and nothing else.

    Old Whateley drove his sleigh through the snow into Dunwich Village, and the dogs barked.

    dropout     - Whateley, drove, sleigh, snow, Dunwich Village, dogs, barked
    abstract    - [NAME], drove, [THING], [THING], [NAME], [THINGS], barked

One line per sentence. Parts of speech decide alone, so that no line claims to be a sentence: it
says what a passage speaks of, not what it says of it. The tags tell names from other nouns and one
thing from several; they cannot tell persons from places, so no placeholder does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.tagging import TaggedWord, tag_sentence

NAME, THING, THINGS = "[NAME]", "[THING]", "[THINGS]"


def outline(text: str, *, aggression: float = 0.0, abstract: bool = False) -> str:
    """The nouns and verbs of `text`, a line per sentence, paragraphs apart; "" where it has none.

    `aggression` is the share of each line that is left out, 0 to 1; what a higher one keeps, a
    lower one keeps as well, and of every line something stays. `abstract` puts placeholders for
    the nouns. Raises ConfigError without the tagger.
    """
    paragraphs = (
        [_line(sentence, aggression, abstract) for sentence in sentences_of(paragraph)]
        for paragraph in text.split("\n\n")
    )
    told = ("\n".join(filter(None, lines)) for lines in paragraphs)
    return "\n\n".join(filter(None, told))


def _line(sentence: str, aggression: float, abstract: bool) -> str:
    items = _items(tag_sentence(sentence))
    kept = len(items) - math.floor(len(items) * aggression)
    seed = sentence.encode("utf-8", "surrogatepass")
    places = sorted(range(len(items)), key=_draw(seed))
    chosen = sorted(places[: max(1, kept)])
    said = ", ".join(_said(items[place], abstract) for place in chosen)
    return f"- {said}" if said else ""


def _items(words: Sequence[TaggedWord]) -> list[list[TaggedWord]]:
    """Every noun and verb by itself, but names that stand side by side together."""
    items: list[list[TaggedWord]] = []
    before = None
    for word in words:
        if word.is_name and before is not None and before.is_name:
            items[-1].append(word)
        elif word.is_noun or word.is_verb:
            items.append([word])
        before = word
    return items


def _said(item: Sequence[TaggedWord], abstract: bool) -> str:
    first = item[0]
    if first.is_name:
        return NAME if abstract else " ".join(word.text for word in item)
    if abstract and first.is_noun:
        return THINGS if first.tag == "NN2" else THING
    return first.text.lower()


def _draw(seed: bytes) -> Callable[[int], bytes]:
    """Ranks places: which go first is drawn, but the same on every machine."""
    start = hashlib.blake2b(seed, digest_size=8)

    def rank(place: int) -> bytes:
        drawn = start.copy()
        drawn.update(str(place).encode())
        return drawn.digest()

    return rank
