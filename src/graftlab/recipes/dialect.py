"""Country speech as older English prose spells it, in standard spelling and grammar.

    They wa'n't no call fer it, an' I'd heerd suthin' a-goin' daown thar.
    There was no call for it, and I had heard something going down there.

What a speaker of dialect said is then an input like any other, and the dialect is the answer's own.
A text in which much is left that no table knows is better left out: `unread` says how much.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.tagging import is_known, tag_sentence, written
from graftlab.recipes.wordlists import words_of_kind

_WORD = re.compile(r"(?<![\w'-])'?[^\W\d_]+(?:[-'][^\W\d_]+)*'?")
_SURE = 2
"""Spellings of the sure kind that make a paragraph dialect; one may be a slip or a name."""

_GRAMMAR = tuple(
    (re.compile(pattern, re.I), standard)
    for pattern, standard in (
        (r"\b(I|it|that|he|she|they|there|nobody|who) 'ud\b", r"\1 would"),
        (r"\bon 'em's\b", "of them are"),
        (r"\bthey's (something|nothing) been\b", r"there has been \1"),
        (r"\ban (?=[bcdfgj-np-tvwxz]|all\b|[a-z]+ing\b)", "and "),
        (r"\ba-(?=[a-z]{2,}ing\b)", ""),
        (r"\bthey's( always| never)? been\b", r"there have\1 been"),
        (r"\bthey('s| is| was| were)(?= (?:a|an|no|some|any|still|things?|something|nothing)\b)",
         r"there\1"),
        (r"\bthey (?:wasn't|weren't) no\b", "there was no"),
        (r"\bthey won't nobody\b", "nobody will"),
        (r"\bthey's\b", "there are"),
        (r"\b(you|we|they) wasn't\b", r"\1 weren't"),
        (r"\b(he|she|it|this|that|nobody) don't\b", r"\1 doesn't"),
        (r"\bI isn't\b", "I'm not"),
        (r"\b(you|we|they) isn't\b", r"\1 aren't"),
        (r"\bisn't (?=got|been|seen|heard|gone|done)", "hasn't "),
        (r"\b(is|was|are|were)n't no\b", r"\1 no"),
        (r"\bhadn't ought to\b", "ought not to"),
        (r"\b(that|this) (?:there|here) (?=[a-z])", r"\1 "),
        (r"\bthem (?:there )?(?=(?:\w+ )?[a-z]{3,}s\b)(?!(?:as|has|was|is) )(?!\w+ (?:is|was) )",
         "those "),
        (r"\bthem (?=that\b|as\b)", "those "),
        (r"\b(half|some|all|most|none|any|one|two|lots) on them's\b", r"\1 of them are"),
        (r"\b(half|some|all|most|none|any|one|two|lots) on them\b", r"\1 of them"),
        (r"\b(those|folks|people|men|them) as (?=says?\b|has\b|have\b|is\b)", r"\1 who "),
        (r"\b(those|folks|people) who says\b", r"\1 who say"),
        (r"\b(thing|something|anything|nothing|house) as (?=ought|isn't|is|was|has|had)",
         r"\1 that "),
        (r", as (?:come|came)\b", ", who came"),
        (r"\bthink as\b", "think"),
        (r"\b((?:more|better|bigger|less|other)(?: \w+){0,2}) nor\b", r"\1 than"),
        (r"\bon a sudden\b", "of a sudden"),
        (r"\ball to once\b", "all at once"),
        (r"\bhad of been\b", "had been"),
        (r"\b(must|might|could|would|should) (?:a|of|ha') (?=\w+(?:ed|en|ne|wn)\b)",
         r"\1 have "),
        (r"\b(has|have|had|'d)( just| never)? saw\b", r"\1\2 seen"),
        (r"\b(has|have|had|'d|is|was)( just| never)? (bl|kn|gr)ew\b", r"\1\2 \3own"),
        (r"\b(he|she|it|I|we|they|you) seen\b", r"\1 saw"),
        (r"(?<!has )(?<!had )(?<!have )\bbegun\b", "began"),
        (r"\b(he|she|it|what) done\b", r"\1 did"),
        (r"\b(he|she|it)( just)? come\b", r"\1\2 came"),
        (r"\b(he|she|it)( never)? see\b", r"\1\2 saw"),
        (r"n't asked\b", "n't ask"),
        (r"\b(\w+n't \w+(?: like| at)?) nothing\b", r"\1 anything"),
        (r"\b(\w+n't \w+) nobody\b", r"\1 anybody"),
        (r"\b(\w+n't \w+) no\b(?! more| longer)", r"\1 any"),
        (r"\blike as if\b", "as if"),
        (r"\bas how\b", "that"),
        (r"\ba (?=[aeio]\w|hour)(?!one|once|eu)", "an "),
    )
)  # fmt: skip
"""Habits of grammar and what is written for them, in this order."""

_PLEONASM = re.compile(
    r"(^'?|[.,;:!?—]['\"]?\s?|\b(?i:and|but|when|that|morning|boy) |\bonce )"
    r"([A-Z][a-z']+) (?:he|she) (?=[a-z])"
)


def standard_english(text: str) -> str:
    """`text` with the dialect of each of its paragraphs read; other paragraphs stay as they are."""
    return "\n\n".join(_read(paragraph) for paragraph in text.split("\n\n"))


def unread(text: str) -> float:
    """Share of words that no dictionary has and no table reads, in the worst paragraph of `text`.

    Counts twice where other spellings say that the paragraph is dialect.
    """
    shares = [0.0]
    for paragraph in text.split("\n\n"):
        words = _WORD.findall(_read(paragraph))
        strange = sum(map(_is_strange, words)) * (2 if is_dialect(paragraph) else 1)
        shares.append(strange / max(len(words), 1))
    return max(shares)


def is_dialect(paragraph: str) -> bool:
    """Whether at least two spellings of the paragraph are a dialect's."""
    found = 0
    for match in _WORD.finditer(paragraph):
        found += _looked_up(match.group(), _tables()["sure"]) is not None
        found += _gerund(match.group()) is not None
        if found >= _SURE:
            return True
    return False


def _read(paragraph: str) -> str:
    text = _WORD.sub(_elided, paragraph)
    if not is_dialect(paragraph):
        return _WORD.sub(lambda match: _gerund(match.group()) or match.group(), text)
    text = _WORD.sub(_standard, text)
    for pattern, standard in _GRAMMAR:
        text = pattern.sub(partial(_expanded, standard), text)
    text = _PLEONASM.sub(_without_pronoun, text)
    return " ".join(map(_agreed, sentences_of(text)))


def _without_pronoun(match: re.Match[str]) -> str:
    """ "Luther he had" as "Luther had"; "Then he had" stays."""
    name = match[2].lower() in words_of_kind("given name") or not is_known(match[2])
    return f"{match[1]}{match[2]} " if name else match.group()


def _agreed(sentence: str) -> str:
    """ "they leads", "the dogs was" as standard English has them."""
    words = list(tag_sentence(sentence))
    for index, word in enumerate(words):
        if index == 0 or word.tag not in ("VVZ", "VBZ", "VBD", "VHZ"):
            continue
        at = index - 1
        while at > 0 and (words[at].is_adverb or words[at].low == "all"):
            at -= 1
        before = words[at]
        several = before.tag == "PNP" and before.low in ("we", "you", "they")
        several = several or (before.low == "i" and word.tag in ("VVZ", "VHZ"))
        outer = at > 1 and any(w.tag in ("PRP", "PRF") for w in words[max(0, at - 3) : at])
        if several or (before.tag == "NN2" and not outer):
            said = {"is": "are", "was": "were", "has": "have"}.get(word.low)
            if said or word.tag == "VVZ":
                words[index] = replace(word, text=said or word.lemma)
    return written(words)


def _expanded(standard: str, match: re.Match[str]) -> str:
    said = match.expand(standard)
    return said[:1].upper() + said[1:] if match.group()[0].isupper() else said


def _standard(match: re.Match[str]) -> str:
    word, tables = match.group(), _tables()
    for table in (tables["sure"], tables["in dialect"]):
        if (found := _looked_up(word, table)) is not None:
            return found
    if (gerund := _gerund(word)) is not None:
        return gerund
    if "-" in word:
        return "-".join(_tables()["sure"].get(part.lower(), part) for part in word.split("-"))
    return word


def _looked_up(word: str, table: dict[str, str]) -> str | None:
    """The standard word, with what belongs to quotation marks kept: "'Wal" is 'Well."""
    for start in ("", "'"):
        for end in ("", "'"):
            if not (word.startswith(start) and word.endswith(end)):
                continue
            inner = word[len(start) : len(word) - len(end)]
            standard = table.get(inner.lower())
            if standard is not None:
                if inner[:1].isupper():
                    standard = standard[:1].upper() + standard[1:]
                return start + standard + end
    return None


def _gerund(word: str) -> str | None:
    """ "a-lappin'" as "lapping"; "begin'" only ends a quotation."""
    found = re.fullmatch(r"('?)(?:a['-])?([A-Za-z]{2,})in'", word)
    if found is None or (is_known(found[2] + "in") and not is_known(found[2] + "ing")):
        return None
    return f"{found[1]}{found[2]}ing"


def _elided(match: re.Match[str]) -> str:
    """ "allow'd" and "deny'd", as print had them once."""
    word = match.group()
    stem, mark, _ = word.partition("'d")
    if not mark or len(stem) < 4 or len(word) > len(stem) + 2:
        return word
    full = re.sub("([^aeiou])y$", r"\1i", stem) + ("d" if stem.endswith("e") else "ed")
    return full if is_known(full) else word


def _is_strange(word: str) -> bool:
    """Not a word that a dictionary has; capitals are names, and what is joined has its parts."""
    bare = word.strip("'")
    if not bare or bare[0].isupper():
        return False
    if re.search(r"'(?!(?:s|t|ll|re|ve|d|m)$)", bare):
        return True
    parts = re.sub(r"(?:n't|'\w+)$", "", bare).split("-")
    return not all(len(part) < 3 or is_known(part) or _is_derived(part) for part in parts)


def _is_derived(word: str) -> bool:
    """A form of a known word, such as "whimpering"."""
    for ending in ("ingly", "ing", "edly", "ed", "ly", "es", "s", "er", "y", "ness", "less", "ish"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2 and any(
            is_known(form) for form in (stem, stem + "e", stem[:-1])
        ):  # fmt: skip
            return True
    return False


@cache
def _tables() -> dict[str, dict[str, str]]:
    """Section of `dialect.txt` -> spelling -> standard word."""
    tables: dict[str, dict[str, str]] = {}
    path = Path(__file__).parent / "dialect.txt"
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            tables[section] = {}
        elif line and not line.startswith("#"):
            standard, _, spellings = line.partition(": ")
            tables[section].update(dict.fromkeys(spellings.lower().split(), standard))
    return tables
