"""A guess at the language of a text by its small words, and the scripts it is written in.

A guess only: the small words of seven languages are known, and a text of other languages in Latin
letters stays unclear.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

FEWEST_WORDS = 5
UNCLEAR, SHORT = "unclear", f"under {FEWEST_WORDS} words"
_LEAST = 0.06
"""Share of words that must be small words of the language."""
_FEWEST_HITS = 3
_WORDS_READ = 400

_SMALL = {
    "English": "the and of to a in is that it for was on are with as be this his at by not or have "
    "from you an they which were her has their will its can what how your my me there if would do",
    "German": "der die und das nicht ist ein eine zu den von mit sich des auf für dem es im auch "
    "als wie bei oder aus wenn nach wird einer einen ich sie wir hat sind war noch über",
    "French": "le la les de des et un une est que dans pour qui du pas sur ne au ce il elle avec "
    "sont par plus vous nous je mais ou être cette aux ses son à été comme",
    "Spanish": "el la los las de y que en un una es por con para del se no su al lo como más pero "
    "sus le ya este sí porque esta entre cuando muy sin sobre también me hay donde",
    "Italian": "il lo la i gli le di e che un una è per con del della dei non si da al sono come "
    "più ma nel alla anche questo ha se ci delle dal io su o essere",
    "Portuguese": "o a os as de e que do da em um uma para com não por mais dos das como mas foi "
    "ao ele se na no é sua seu ou ser quando muito nos já está também são você",
    "Dutch": "de het een en van ik te dat die in is niet op zijn voor met als er maar om hem dan "
    "zou of wat mijn dit zo door over ze bij ook tot je naar uit nog worden",
}
_OWNERS: dict[str, list[str]] = {}
for _name, _words in _SMALL.items():
    for _word in _words.split():
        _OWNERS.setdefault(_word, []).append(_name)

_WORD = re.compile(r"[^\W\d_]+")
_BEYOND_LATIN = re.compile(r"[^\x00-\u024f]")
BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def guess(text: str) -> str:
    """A language's name, a script's for letters that are mostly not Latin, `unclear` or `under 5
    words`."""
    words = _WORD.findall(text.lower())[:_WORDS_READ]
    letters = "".join(words)
    foreign = Counter(map(script, "" if letters.isascii() else _BEYOND_LATIN.findall(letters)))
    if letters and 2 * foreign.total() > len(letters):
        return f"{foreign.most_common(1)[0][0]} script"
    if len(words) < FEWEST_WORDS:
        return SHORT
    heard: dict[str, list[str]] = {}
    for word in words:
        for owner in _OWNERS.get(word, ()):
            heard.setdefault(owner, []).append(word)
    best = max(heard, key=lambda owner: sum(_weight(word) for word in heard[owner]), default="")
    enough = len(heard.get(best, ())) >= max(_FEWEST_HITS, _LEAST * len(words))
    return best if enough and len(set(heard[best])) > 1 else UNCLEAR


def _weight(word: str) -> float:
    """A word of several languages says less."""
    return 1 / len(_OWNERS[word])


@lru_cache(4096)
def script(letter: str) -> str:
    """Latin, Cyrillic, CJK ...; for what is no letter, the kind of sign; unnamed if unknown."""
    category = unicodedata.category(letter)
    if category[0] in "LM":
        return (
            unicodedata.name(letter, "unnamed")
            .split()[0]
            .split("-")[0]
            .capitalize()
            .replace("Cjk", "CJK")
        )
    return _KINDS.get(category[0], "other")


_KINDS = {"P": "punctuation", "S": "symbols and emoji", "N": "digits", "Z": "spaces"}
