"""`metrics=persona`: how near replies come to an author's own text, in rhythm, words and voice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_range
from graftlab.evaluation.metrics.author import Author, named_files, read_author, spread_apart
from graftlab.evaluation.metrics.base import LESS, MORE, Measure, Metric
from graftlab.recipes.words import words_of
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged


@choice("persona")
@dataclass(kw_only=True, slots=True)
class Persona(Metric):
    """Distances to the text in `corpus`; with `plain` text beside it, the author's own words too.

    Rhythm: the 1-Wasserstein distance between the lengths of sentences. Voice: the
    quadratic form (Argamon 2008, Literary and Linguistic Computing 23, 131-147) of Burrows' Delta
    over the author's most frequent words, without what chance adds in a short reply.
    Vocabulary: other words, which mark the author against plain text by log-odds with an
    informative Dirichlet prior (Monroe, Colaresi & Quinn 2008, Political Analysis 16, 372-403), and
    how often replies use them, the author's own rate being 1.

    A short reply tells little by itself: compare models over many of them.
    """

    corpus: Any = None
    """The author's own text: a file of plain text, a list of files or a glob; required."""
    plain: Any = None
    """Text of others, as plain as can be; null leaves the vocabulary out."""
    frequent: int = 100
    """The author's most frequent words, by which the voice is known, and never the vocabulary."""
    words: int = 200
    """At most so many words that mark the author."""

    def __post_init__(self) -> None:
        require_range("metrics.persona.frequent", self.frequent, least=10)
        require_range("metrics.persona.words", self.words, least=1)

    def check(self) -> None:
        if not self.corpus:
            raise ConfigError(
                "metrics=persona compares with an author: give metrics.persona.corpus=FILE."
            )
        self._author()

    def measures(self) -> dict[str, Measure]:
        found = {
            "avg_rhythm_distance": Measure(
                about="distance of sentence lengths from the author's, in words", better=LESS
            ),
            "avg_delta": Measure(about="quadratic Delta from the author's voice", better=LESS),
        }
        if self.plain:
            about = "use of the author's words, the author's own being 1"
            found["avg_vocabulary"] = Measure(about=about, better=MORE)
        return found | {
            "avg_sentence_words": Measure(about="words per sentence"),
            "avg_sentence_variance": Measure(about="variance of words per sentence"),
            "avg_commas": Measure(about="commas per 100 words"),
            "avg_clauses": Measure(about="marks between clauses per 100 words"),
        }

    def score(self, case: Case) -> Judged:
        author, text = self._author(), case.said.text
        lengths, words = author.sentence_lengths(text), words_of(text)
        said = bool(lengths and words)
        mean = sum(lengths) / len(lengths) if said else 0.0
        per_100 = 100 / len(words) if words else 0.0
        scores: Judged = {
            "avg_rhythm_distance": spread_apart(lengths, author.lengths) if said else None,
            "avg_delta": author.delta(words) if said else None,
            "avg_sentence_words": mean if said else None,
            "avg_sentence_variance": (
                sum((n - mean) ** 2 for n in lengths) / len(lengths) if said else None
            ),
            "avg_commas": text.count(",") * per_100 if said else None,
            "avg_clauses": sum(map(text.count, ",;:—–(")) * per_100 if said else None,
        }
        if self.plain:
            scores["avg_vocabulary"] = author.vocabulary(words) if said else None
        return {name: scores[name] for name in self.measures()}

    def _author(self) -> Author:
        return read_author(
            named_files(self.corpus),
            named_files(self.plain),
            frequent=self.frequent,
            words=self.words,
        )
