"""Words with their part of speech: what the offline teacher rewrites by.

The tagger is HanTa (LGPL-3.0-or-later), whose English lexicon ships inside its package. Its tags
are the C5 set of the British National Corpus; `Word` asks the few questions that rules need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

from graftlab.errors import ConfigError
from graftlab.recipes.wordlists import words_of_kind

INSTALL = "pip install 'graftlab[prepare]'"

_TOKEN = re.compile(
    r"(?P<before>\s*)(?P<text>\[\w+\]|(?:[ap]\.m\.|i\.e\.|e\.g\.)"
    r"|(?:Mr|Mrs|Ms|Dr|St|Rev|Prof|Capt|Col|Gen|Lt|Sr|Jr|Esq|vol|etc)\."
    r"|\d[\d,.:]*\d|\d+(?:st|nd|rd|th)?|can(?=not\b)|n't\b"
    r"|[^\W\d_]+(?=n't\b)|'(?:s|ll|re|ve|d|m)\b"
    r"|[^\W\d_]+(?:-[^\W\d_]+|'(?!(?:s|ll|re|ve|d|m|t)\b)[^\W\d_]+)*|\.{2,}|\S)",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word or mark of punctuation, as it stands in its sentence."""

    text: str
    tag: str = "PUN"
    lemma: str = ""
    before: str = " "
    """The space in front of it."""

    @property
    def low(self) -> str:
        return self.text.lower()

    @property
    def is_word(self) -> bool:
        return self.text[0].isalnum() or (self.text[0] in "'[" and len(self.text) > 1)

    @property
    def is_noun(self) -> bool:
        return self.tag[0] == "N" or self.tag == "ZZ0"

    @property
    def is_name(self) -> bool:
        return self.tag == "NP0"

    @property
    def is_adjective(self) -> bool:
        return self.tag in ("AJ0", "AJC", "AJS")

    @property
    def is_adverb(self) -> bool:
        return self.tag == "AV0"

    @property
    def is_verb(self) -> bool:
        return self.tag[0] == "V"

    @property
    def is_finite(self) -> bool:
        """A verb that can be the verb of a clause by itself."""
        return self.tag in _FINITE

    @property
    def is_determiner(self) -> bool:
        return self.tag in ("AT0", "DT0", "DPS", "CRD", "ORD")

    @property
    def begins_clause(self) -> bool:
        """A pronoun, article or name, as the subject of a clause begins."""
        return self.tag in ("PNP", "AT0", "DPS", "DT0", "NP0", "EX0", "PNI") and self.low not in (
            *("him", "them", "me", "us", "her", "which"),
        )


_FINITE = frozenset(
    ["VBD", "VBZ", "VBB", "VHD", "VHZ", "VHB", "VDD", "VDZ", "VDB", "VVD", "VVZ", "VVB", "VM0"]
)

Sentence = tuple[Word, ...]


@lru_cache(maxsize=8192)
def tag_sentence(sentence: str) -> Sentence:
    """The words of one sentence with their tags; joined again, they are the sentence.

    Raises ConfigError with the install line when the tagger is not there.
    """
    tokens = [(m["text"], m["before"]) for m in _TOKEN.finditer(sentence.rstrip())]
    if not tokens:
        return ()
    tagged = _tagger().tag_sent([text for text, _ in tokens])
    words = [
        Word(text, _tag(text, tag), str(lemma).lower(), before)
        for (text, before), (_, lemma, tag) in zip(tokens, tagged, strict=True)
    ]
    for index, word in enumerate(words[:-1]):
        tag = _tag_between(words[index - 1] if index else None, word, words[index + 1])
        words[index] = replace(word, tag=tag)
    return tuple(words)


def _tag_between(before: Word | None, word: Word, after: Word) -> str:
    """The tag, corrected where the neighbours say more."""
    if word.tag == "AJ0" and (after.tag == "AVP" or (after.low == "by" and word.low[-2:] == "ed")):
        return "VVN"  # "hushed up", "perturbed by"
    if before is None:
        return word.tag
    if word.tag in ("VVZ", "VVB") and word.text[0].isupper() and before.is_word:
        return "NP0"  # "the Fryes"
    if before.low in ("and", "or") and word.tag == "NN1" and after.tag in ("AT0", "DPS"):
        return "VVI"  # "go down and beard the horror"
    someone = before.tag == "PNP" or before.low in ("one", "nobody", "everyone", "everybody")
    if someone and word.tag == "NN2" and after.tag in ("TO0", "AT0", "PNP", "DPS"):
        return "VVZ" if before.low != "them" else word.tag  # "one dreads to trust it"
    return word.tag


def _tag(text: str, tag: str) -> str:
    """The tagger's word, corrected where one look at the token says more."""
    if not text[0].isalnum() and not (text[0] in "'[" and len(text) > 1):
        return "PUN"
    if text[0].isdigit():
        return "CRD"
    if text.lower() == "few":
        return "AJ0"
    if text.lower() == "many":
        return "DT0"
    if "." in text:
        return "NP0" if text[0].isupper() else "UNC"
    if tag == "AV0" and text[0].isupper() and not text.endswith("ly") and not is_known(text):
        return "NP0"  # an unknown capitalised word is no adverb
    if text.lower().endswith("ly") and tag == "AJ0" and text.lower() not in _LY_ADJECTIVES:
        return "AV0"
    return tag


_LY_ADJECTIVES = words_of_kind("-ly adjective")


def is_known(text: str) -> bool:
    """Whether the tagger has seen the word, rather than guessed by its letters."""
    return text.lower() in _tagger().cache


def require_tagger() -> None:
    """Raise ConfigError with the install line unless the tagger is installed; loads nothing."""
    if find_spec("HanTa") is None:
        raise ConfigError(
            "The offline teacher tags parts of speech with HanTa, which is not installed: "
            f"{INSTALL}, or choose another teacher with teacher=http."
        )


@cache
def _tagger() -> Any:
    require_tagger()
    from HanTa.HanoverTagger import (  # type: ignore[import-untyped, unused-ignore]
        HanoverTagger,
    )

    return HanoverTagger("morphmodel_en.pgz")


def written(words: Sequence[Word]) -> str:
    """Words as text again."""
    return "".join(word.before + word.text for word in words).strip()
