"""`metrics=invention`: whether a reply to a bare noun invents a metaphor of the author's kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_range
from graftlab.evaluation.metrics.author import named_files, read_author
from graftlab.evaluation.metrics.base import MORE, Measure, Metric
from graftlab.evaluation.metrics.figures import figures_in, images_in
from graftlab.recipes.words import words_of
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt


@choice("invention")
@dataclass(kw_only=True, slots=True)
class Invention(Metric):
    """Replies to prompts such as `The Stock Market`: a figure of speech, and the author's imagery.

    A bare noun is a last user turn, or what stands behind a line that ends with a colon, of a few
    words without punctuation; replies to other prompts have no score. Figures are found by the
    shapes in `figures.py`, in English; images are words that mark the author against plain text
    (as in metrics=persona) and those of `imagery`, the prompt's own words aside. A rule, no
    reader: compare models by it, and have blind pairs or a judge confirm.
    """

    imagery: list[str] = field(default_factory=list)
    """The author's images: ocean, gears, rot."""
    corpus: Any = None
    """The author's own text, to find more: a file of plain text, a list of files or a glob."""
    plain: Any = None
    """Text of others, as plain as can be; needed with corpus."""
    words: int = 200
    """At most so many words that mark the author."""
    noun: int = 4
    """Words of a bare noun at most."""
    images: int = 1
    """Images that a reply needs."""

    def __post_init__(self) -> None:
        for key in ("words", "noun", "images"):
            require_range(f"metrics.invention.{key}", getattr(self, key), least=1)

    def check(self) -> None:
        if bool(self.corpus) != bool(self.plain) or not (self.imagery or self.corpus):
            raise ConfigError(
                "metrics=invention looks for an author's images: give "
                "metrics.invention.imagery=[ocean,gears], or metrics.invention.corpus=FILE and "
                "plain=FILE."
            )
        self._images()

    def measures(self) -> dict[str, Measure]:
        told = {
            "pct_invention": "replies to a bare noun with a figure of speech and an image",
            "pct_figure": "replies to a bare noun with a figure of speech",
            "pct_image": "replies to a bare noun with an image of the author's",
        }
        found = {
            name: Measure(about=about, better=MORE if name == "pct_invention" else None, share=True)
            for name, about in told.items()
        }
        return found | {"avg_figures": Measure(about="figures of speech per 100 words")}

    def score(self, case: Case) -> Judged:
        if not self._is_bare(case.prompt):
            return dict.fromkeys(self.measures())
        text, images = case.said.text, self._images()
        asked = case.prompt.conversation.messages[-1].text
        figures = figures_in(text, images)
        seen = images_in(text, images, but=asked) >= self.images
        words = len(words_of(text))
        return {
            "pct_invention": float(figures > 0 and seen),
            "pct_figure": float(figures > 0),
            "pct_image": float(seen),
            "avg_figures": 100 * figures / words if words else None,
        }

    def _is_bare(self, prompt: Prompt) -> bool:
        lines = [line.strip() for line in prompt.conversation.messages[-1].text.splitlines()]
        *before, last = [line for line in lines if line] or [""]
        if before and not before[-1].endswith(":"):
            return False
        return 0 < len(last.split()) <= self.noun and not set(last) & set(".!?;:,")

    def _images(self) -> frozenset[str]:
        own = frozenset(word.casefold() for word in self.imagery)
        if not self.corpus:
            return own
        author = read_author(
            named_files(self.corpus),
            named_files(self.plain),
            frequent=100,
            words=self.words,
            key="metrics.invention",
        )
        return own | author.marking
