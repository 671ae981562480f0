"""Figures of speech in English, by a few shapes that can be told without a model.

    simile       like a tide, like some great clock, as cold as iron, as if it breathed, akin to rot
    metaphor     is a shifting ocean of greed: to be, `a`, at most two words, a noun that is no
                 abstract one by its ending, `of` and what it is of
    image        an ocean of greed, wherever it stands, if `ocean` is among the images given

Nouns that only count or sort, as in `is a kind of loan`, make no metaphor, and neither does `would
like a`. The rule misses figures of other shapes and takes some plain words for one: it compares
replies of two models to the same prompts, and is no census of a text.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from graftlab.recipes.words import words_of

_NOT_LIKE = r"(?<!would )(?<!I )(?<!you )(?<!we )(?<!they )(?<!'d )(?<!to )(?<!don't )(?<!not )"
_LIKE = rf"{_NOT_LIKE}like (?:an?|some|the \w+ of)\b(?! (?:lot|bit|few)\b)"
_AS = (
    r"as (?!well|soon|long|far|much|many|good)\w+ as (?!possible|need|necess|c(?:ould|an)\b|it\b|"
    r"s?he\b|they\b|you\b|we\b|I\b|any\b|most\b|in\b|at\b|ever\b|\w+ing\b|the other)\w+"
)
_SIMILE = re.compile(rf"\b(?:{_LIKE}|{_AS}|as (?:if|though)\b|akin to\b|reminiscent of\b)", re.I)
_PLAIN = (
    *("type", "kind", "form", "part", "set", "group", "number", "collection", "way", "place"),
    *("piece", "example", "result", "member", "source", "means", "method", "process", "lot"),
    *("variety", "range", "series", "state", "sign", "measure", "unit", "combination", "list"),
    *("name", "system", "branch", "field", "study", "product", "function", "amount", "rate"),
    *("majority", "percentage", "share", "symbol", "sort", "class", "category", "subset"),
    *("market", "act", "art", "cause", "level", "term", "network", "use", "science", "city"),
    *("capital", "king", "queen", "president", "author", "member", "half", "end", "beginning"),
    *("friend", "son", "daughter", "boy", "girl", "man", "woman", "matter", "thing", "period"),
    *("risk", "sense", "sequence", "degree", "fan", "lack", "page", "work", "story", "play"),
    *("component", "family", "table", "species", "outline", "total", "string", "leader", "issue"),
    *("indicator", "driver", "doctor", "waste", "shade", "body", "model", "line", "pair", "copy"),
    *("top", "bottom", "side", "middle", "center", "centre", "day", "time", "point", "case"),
)
_ABSTRACT = r"(?!\w*(?:tion|sion|ment|ness|ity|ence|ance|ancy|ship|hood|ism|sis|ysis)\b)"
_OF = rf"(?:[\w'-]+ ){{0,2}}?{_ABSTRACT}([\w'-]+) of (?!the (?:same|following|most)\b)\w+"
_METAPHOR = re.compile(rf"\b(?:is|are|was|were|be|becomes?|became|remains?) an? {_OF}", re.I)
_IMAGE = re.compile(rf"\b(?:an?|the) {_OF}", re.I)


def figures_in(text: str, images: Collection[str] = ()) -> int:
    """How many figures of speech; `images` are nouns that make `an ocean of greed` one."""
    text = " ".join(text.replace("’", "'").split())
    found = {match.start(): match.end() for match in _SIMILE.finditer(text)}
    for pattern in (_METAPHOR, _IMAGE):
        for match in pattern.finditer(text):
            noun = match[1].lower()
            if noun.rstrip("s") in _PLAIN or noun in _PLAIN:
                continue
            if pattern is _IMAGE and noun not in images and noun.rstrip("s") not in images:
                continue
            if not any(start < match.end() and match.start() < end for start, end in found.items()):
                found[match.start()] = match.end()
    return len(found)


def images_in(text: str, images: Collection[str], *, but: str) -> int:
    """How many words of a text are images that do not stand in `but`."""
    given = set(words_of(but))
    return sum(word in images and word not in given for word in words_of(text))
