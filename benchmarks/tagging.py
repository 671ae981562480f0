"""How well parts of speech are told where it matters to `prepare`: nouns, names and verbs.

The sample is English prose of three writers and some plain lines, about 600 words tagged by hand:
`word/N` a noun, `/P` a name, `/V` a verb with a meaning of its own, no mark for the rest, several
letters where each of them is right ("reasoning machine"). Be, have, do and modals count as rest.

Run as:
    python benchmarks/tagging.py                      # HanTa, as `prepare` uses it
    python benchmarks/tagging.py --spacy MODEL        # and a spaCy model, a package or a folder
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SAMPLE = Path(__file__).parent / "tagging_sample.txt"
AUXILIARIES = ("be", "have", "do")
Tagger = Callable[[Sequence[str]], list[str]]
"""Words of a sentence -> N, P, V or O for each."""


def read(path: Path) -> list[list[tuple[str, str]]]:
    """Sentences of (word, letters that are right)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = ([word.rpartition("/") for word in line.split()] for line in lines)
    return [[(w or mark, mark if w else "O") for w, _, mark in line] for line in pairs]


def hanta() -> Tagger:
    from graftlab.recipes.tagging import tag_words

    def tag(words: Sequence[str]) -> list[str]:
        found = tag_words(words)
        return [
            "P" if w.is_name else "N" if w.is_noun else "V" if w.is_verb else "O" for w in found
        ]

    return tag


def spacy(name: str) -> Tagger:
    import spacy as package
    from spacy.tokens import Doc

    model = package.load(name)
    letters = {"NOUN": "N", "PROPN": "P", "VERB": "V"}

    def tag(words: Sequence[str]) -> list[str]:
        found = model(Doc(model.vocab, words=list(words)))
        return [
            "O" if token.lemma_ in AUXILIARIES else letters.get(token.pos_, "O") for token in found
        ]

    return tag


def measure(name: str, tagger: Tagger, sentences: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Print a row of the table, and what was told wrong."""
    tagger(["Warm", "."])
    start, right, wrong, count = time.perf_counter(), 0, [], 0
    for sentence in sentences:
        found = tagger([word for word, _ in sentence])
        for (word, letters), letter in zip(sentence, found, strict=True):
            if word[0].isalnum():
                count += 1
                right += letter in letters
                wrong += [] if letter in letters else [f"{word} ({letters}, not {letter})"]
    seconds = time.perf_counter() - start
    print(f"| {name} | {right} of {count} | {right / count:.1%} | {count / seconds:,.0f} |")
    print(f"\nWrong: {', '.join(wrong)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spacy", metavar="MODEL")
    options = parser.parse_args()
    sentences = read(SAMPLE)
    print("| tagger | right | share | words/s |\n|---|---|---|---|")
    measure("HanTa", hanta(), sentences)
    if options.spacy:
        measure("spaCy", spacy(options.spacy), sentences)


if __name__ == "__main__":
    main()
