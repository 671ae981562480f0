"""Plain words for ornate ones: the lists in `plain.txt`, with the forms English gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from graftlab.recipes.tagging import Word

_IRREGULAR = {
    "become": "became become", "begin": "began begun", "bend": "bent bent", "break": "broke broken",
    "bring": "brought brought", "build": "built built", "buy": "bought bought",
    "come": "came come", "cut": "cut cut", "eat": "ate eaten", "fall": "fell fallen",
    "find": "found found", "forbid": "forbade forbidden", "forget": "forgot forgotten",
    "get": "got got", "give": "gave given", "go": "went gone", "grow": "grew grown",
    "hang": "hung hung", "have": "had had", "hide": "hid hidden", "hold": "held held",
    "hurt": "hurt hurt", "keep": "kept kept", "know": "knew known", "lead": "led led",
    "leave": "left left", "make": "made made", "meet": "met met", "put": "put put",
    "read": "read read", "rise": "rose risen", "run": "ran run", "say": "said said",
    "see": "saw seen", "send": "sent sent", "shake": "shook shaken", "shine": "shone shone",
    "show": "showed shown", "sleep": "slept slept", "spread": "spread spread",
    "take": "took taken", "tell": "told told", "think": "thought thought", "weep": "wept wept",
}  # fmt: skip
_NOUNS = {"man": "men", "woman": "women", "child": "children", "people": "people", "body": "bodies"}
_DOUBLED = {"stop", "rot", "run", "get", "put", "cut", "forget", "forbid"}
_JOINING = {"yet", "though", "albeit"}
"""Conjunctions with a second life as adverbs: "has yet been found", "the doctor, though"."""

_POS = {"V": "verb", "N": "noun", "A": "adjective"}


@dataclass(frozen=True, slots=True)
class Lexicon:
    """`words[pos][ornate]` is the plain word; `phrases` replaces runs of words in raw text."""

    words: dict[str, dict[str, str]]
    phrases: list[tuple[re.Pattern[str], str]]

    def plain(self, word: Word) -> str | None:
        """The plain word in the form of `word`; "" where it goes, None where none is listed."""
        if word.is_name or not word.is_word or word.low in ("born", "borne"):
            return None
        if (plain := self.words["other"].get(word.low)) is not None and not word.is_verb:
            joins = word.low not in _JOINING or word.tag[:2] == "CJ"
            return _cased(plain, word.text) if joins else None
        pos = _POS.get(word.tag[0])
        if pos is None or word.tag[:2] in ("AV", "AT", "VM", "VB", "VH", "VD"):
            return None
        key = word.lemma if pos != "adjective" else word.low
        plain = self.words[pos].get(key)
        if plain is None or word.tag in ("AJC", "AJS"):
            return None
        return _cased(_inflect(plain, word), word.text)

    def spell(self, text: str) -> str:
        """`text` with its fixed phrases, contractions and dialect spellings made plain."""
        for pattern, plain in self.phrases:
            text = pattern.sub(partial(_cased_like, plain), text)
        return text


def _inflect(plain: str, word: Word) -> str:
    if plain == "-":
        return ""
    head, _, rest = plain.partition(" ")
    form = _verb(head, word.tag) if word.is_verb else head
    if word.tag == "NN2" and form not in ("trouble", "people"):
        form = _NOUNS.get(form) or _plural(form)
    return f"{form} {rest}" if rest else form


def _verb(plain: str, tag: str) -> str:
    ending = tag[2]
    if ending in "DN":
        if plain in _IRREGULAR:
            return _IRREGULAR[plain].split()[ending == "N"]
        return _suffixed(plain, "ed")
    if ending == "G":
        return _suffixed(plain, "ing")
    return _plural(plain) if ending == "Z" else plain


def _suffixed(stem: str, suffix: str) -> str:
    if stem in _DOUBLED:
        return stem + stem[-1] + suffix
    if stem.endswith("ie") and suffix == "ing":
        return stem[:-2] + "ying"
    if stem.endswith("e") and not stem.endswith("ee"):
        return stem[:-1] + suffix
    if suffix == "ed" and re.search("[^aeiou]y$", stem):
        return stem[:-1] + "ied"
    return stem + suffix


def third_person(stem: str) -> str:
    """The -s form of a verb."""
    return "is" if stem == "be" else _plural(stem)


def _plural(stem: str) -> str:
    """The -s form, of a noun or of a verb."""
    if stem == "have":
        return "has"
    if stem.endswith(("s", "x", "z", "ch", "sh", "o")):
        return stem + "es"
    return stem[:-1] + "ies" if re.search("[^aeiou]y$", stem) else stem + "s"


def _cased(plain: str, like: str) -> str:
    return plain[:1].upper() + plain[1:] if like[:1].isupper() and plain else plain


def _cased_like(plain: str, match: re.Match[str]) -> str:
    return _cased(plain, match.group())


def renamed(word: Word, plain: str) -> list[Word]:
    """`word` with another text; several words where the plain one is several."""
    first, *rest = plain.split()
    return [replace(word, text=first), *(Word(text, "PRP", text) for text in rest)]


def _phrase_pattern(phrase: str, *, goes: bool) -> re.Pattern[str]:
    """Where `phrase` stands; one that goes takes the commas around it along."""
    said = re.escape(phrase) + (r"(?!\w)" if phrase[-1].isalnum() else "")
    if goes:
        said = rf"(?:^|(?<=[\"'(—])){said},? *|(?:, +|(?<! ) +|(?<=—)){said},?"
    else:
        said = rf"(?<![\w'-]){said}"
    return re.compile(said, re.I | re.M)


@cache
def lexicon() -> Lexicon:
    """The lists of `plain.txt`, read once."""
    words: dict[str, dict[str, str]] = {"verb": {}, "noun": {}, "adjective": {}, "other": {}}
    phrases: list[tuple[re.Pattern[str], str]] = []
    section = ""
    path = Path(__file__).parent / "plain.txt"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            left, _, right = line.partition(":")
            if section == "phrase":
                plain = right.strip().replace("-", "")
                phrases.append((_phrase_pattern(left, goes=not plain), plain))
            else:
                words[section].update(dict.fromkeys(right.split(), left))
    return Lexicon(words, phrases)
