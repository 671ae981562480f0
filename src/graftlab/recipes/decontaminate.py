"""The step `decontaminate`: nothing stays that an evaluation will ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.errors import DataError, Problem, require_range
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.sources import find_files, read_file
from graftlab.recipes.words import hash64, ngrams, texts_in, words_of

FEWEST_WORDS = 3
"""A shorter evaluation text, such as `Yes.`, contaminates nothing."""


@dataclass(kw_only=True, slots=True)
class Decontaminate:
    """`decontaminate.against=eval.jsonl`."""

    against: Any = None
    """Evaluation files of any format and shape (a file, a list or a glob); null checks nothing."""
    ngram: int = 13
    """Words in a row that a record may not share with an evaluation text, as in the making of
    GPT-3 (arXiv:2005.14165); a shorter evaluation text may not be a turn by itself."""

    def __post_init__(self) -> None:
        require_range("decontaminate.ngram", self.ngram, least=FEWEST_WORDS)

    def paths(self) -> list[Path]:
        """The evaluation files. Raises ConfigError where one is missing."""
        return find_files("decontaminate.against", self.against) if self.against else []

    def check(self) -> None:
        """Raise ConfigError unless the evaluation files are there."""
        self.paths()

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """Streams; the n-grams of the evaluation files are held, about 100 bytes each."""
        if not self.against:
            yield from records
            return
        runs, whole = self._read()
        for record in records:
            if found := self._shared(record, runs, whole):
                drop(record, "overlaps an evaluation file", found)
            else:
                yield record

    def _read(self) -> tuple[dict[int, str], dict[int, str]]:
        """Hash -> place of every n-gram, and of every text that is shorter than one."""
        runs: dict[int, str] = {}
        whole: dict[int, str] = {}
        for path in self.paths():
            for row in read_file(path):
                if row.problem is not None:
                    raise DataError(
                        "decontaminate.against cannot be read:",
                        [Problem(f"{path}:{row.line}", str(row.problem))],
                    )
                for text in texts_in(row.value):
                    words = words_of(text)
                    if len(words) >= self.ngram:
                        for run in ngrams(words, self.ngram):
                            runs.setdefault(hash64(run), f"{path}:{row.line}")
                    elif len(words) >= FEWEST_WORDS:
                        whole.setdefault(hash64(" ".join(words)), f"{path}:{row.line}")
        return runs, whole

    def _shared(self, record: Record, runs: dict[int, str], whole: dict[int, str]) -> str | None:
        for text in texts_in(record.body):
            words = words_of(text)
            if len(words) < self.ngram:
                candidates, known = [" ".join(words)], whole
            else:
                candidates, known = ngrams(words, self.ngram), runs
            for run in candidates:
                if (place := known.get(hash64(run))) is not None:
                    return f"{place}: {run}"
        return None
