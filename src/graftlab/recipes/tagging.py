"""Words with their part of speech, by HanTa (LGPL-3.0-or-later), whose lexicon ships inside it.

Its tags are the C5 set of the British National Corpus: N* nouns (NN2 plural, NP0 names), V* verbs,
of which VV* are those with a meaning of their own: no be, have, do or modal. How well it tags is
measured by `benchmarks/tagging.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from graftlab.errors import ConfigError

_LETTERS, _WORDS = 40, 400
"""Letters of a word and words of a sentence that the tagger sees at a time: its work grows faster
than they do."""
INSTALL = "pip install 'graftlab[prepare]'"

_TOKEN = re.compile(
    r"(?:[ap]\.m\.|i\.e\.|e\.g\.)|(?:Mr|Mrs|Ms|Dr|St|Rev|Prof|Capt|Col|Gen|Lt|Sr|Jr)\."
    r"|\d[\d,.:]*\d|\d+(?:st|nd|rd|th)?|can(?=not\b)|n't\b|[^\W\d_]+(?=n't\b)"
    r"|'(?:s|ll|re|ve|d|m)\b"
    r"|[^\W\d_]+(?:-[^\W\d_]+|'(?!(?:s|ll|re|ve|d|m|t)\b)[^\W\d_]+)*|\S",
    re.I,
)


@dataclass(frozen=True, slots=True)
class TaggedWord:
    """A word or mark of punctuation of a sentence."""

    text: str
    tag: str

    @property
    def is_name(self) -> bool:
        return self.tag == "NP0"

    @property
    def is_noun(self) -> bool:
        """Names included."""
        return self.tag[:2] in ("NN", "NP")

    @property
    def is_verb(self) -> bool:
        """A verb with a meaning of its own."""
        return self.tag[:2] == "VV"


def tag_sentence(sentence: str) -> list[TaggedWord]:
    """The words of one sentence with their tags.

    Raises ConfigError with the install line when the tagger is not there.
    """
    return tag_words(_TOKEN.findall(sentence.replace("’", "'")))


def tag_words(words: Sequence[str]) -> list[TaggedWord]:
    """Words of one sentence, told apart already, with their tags. Raises as `tag_sentence`."""
    asked = [word[:_LETTERS] for word in words]
    parts = (asked[start : start + _WORDS] for start in range(0, len(asked), _WORDS))
    found = [tagged for part in parts for tagged in _tagger().tag_sent(part)]
    told: list[TaggedWord] = []
    for text, (_, _, tag) in zip(words, found, strict=True):
        word = TaggedWord(text, str(tag) if text[0].isalpha() else "PUN")
        within = told and told[-1].text[0].isalnum()
        if within and text[0].isupper() and (word.is_noun or word.is_verb):
            # "Sentinel Hill", "the Fryes": a capital within a sentence
            word = TaggedWord(text, "NP0")
        told.append(word)
    return told


def require_tagger() -> None:
    """Raise ConfigError with the install line unless the tagger is installed; loads nothing."""
    if find_spec("HanTa") is None:
        raise ConfigError(
            "Parts of speech are tagged with HanTa, which is not installed: "
            f"{INSTALL}, or leave out what needs it with persona.variations=[neutral]."
        )


@cache
def _tagger() -> Any:
    require_tagger()
    from HanTa.HanoverTagger import (  # type: ignore[import-untyped, unused-ignore]
        HanoverTagger,
    )

    return HanoverTagger("morphmodel_en.pgz")
