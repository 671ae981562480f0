"""`metrics=words`: how often replies use the words of lists, such as those of cheerfulness."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, require_choice
from graftlab.evaluation.metrics.base import LESS, MORE, Measure, Metric
from graftlab.recipes.words import words_of
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged

CHEERFUL = (
    *("absolutely", "amazing", "awesome", "certainly", "delight*", "excit*", "fantastic", "fun"),
    *("glad to", "great question", "happ*", "hooray", "joy*", "love to", "thrill*", "wonderful*"),
    *("!", "😀", "😃", "😄", "😊", "🎉", "🙂"),
)
"""What an assistant says whose training asked it to please."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@choice("words")
@dataclass(kw_only=True, slots=True)
class Words(Metric):
    """Each list by itself: replies that use it, and its words per 100 words.

    An entry is a word, several or a mark, in any case; `*` at its end stands for any ending.
    """

    lists: dict[str, list[str]] = field(default_factory=lambda: {"cheerful": list(CHEERFUL)})
    """Name -> its entries: metrics.words.lists.gloomy=[rot,entropy,decay*] adds one."""
    want: list[str] = field(default_factory=list)
    """Lists of which more is better."""
    avoid: list[str] = field(default_factory=lambda: ["cheerful"])
    """Lists of which less is better."""

    def __post_init__(self) -> None:
        for key in ("want", "avoid"):
            for name in getattr(self, key):
                require_choice(f"metrics.words.{key}", name, list(self.lists))
        if both := set(self.want) & set(self.avoid):
            raise ConfigError(f"metrics.words: {', '.join(sorted(both))} is wanted and avoided.")
        for name, entries in self.lists.items():
            if not _NAME.fullmatch(name):
                raise ConfigError(f"metrics.words.lists.{name}: a name has letters, digits and _.")
            if not entries or not all(entry.strip(" *") for entry in entries):
                raise ConfigError(f"metrics.words.lists.{name} must be a list of words.")

    def measures(self) -> dict[str, Measure]:
        found: dict[str, Measure] = {}
        for name in self.lists:
            better = MORE if name in self.want else LESS if name in self.avoid else None
            about = f"replies with {name} words"
            found[f"pct_{name}"] = Measure(about=about, better=better, share=True)
            found[f"avg_{name}"] = Measure(about=f"{name} words per 100 words")
        return found

    def score(self, case: Case) -> Judged:
        text = case.said.text
        scores: Judged = {}
        words = len(words_of(text))
        for name, entries in self.lists.items():
            hits = count_listed(text, entries)
            scores[f"pct_{name}"] = float(hits > 0)
            scores[f"avg_{name}"] = 100 * hits / words if words else None
        return scores


def count_listed(text: str, entries: Iterable[str]) -> int:
    """How often the entries of a list stand in a text."""
    return len(_listed(tuple(entries)).findall(text.replace("’", "'")))


@lru_cache(maxsize=64)
def _listed(entries: tuple[str, ...]) -> re.Pattern[str]:
    parts = []
    for entry in sorted(map(str.strip, entries), key=len, reverse=True):
        stem = entry.rstrip("*").replace("’", "'")
        part = r"\s+".join(map(re.escape, stem.split()))
        left = r"\b" if stem[0].isalnum() else ""
        right = r"\w*" if entry.endswith("*") else r"\b" if stem[-1].isalnum() else ""
        parts.append(f"{left}{part}{right}")
    return re.compile("|".join(parts), re.I)
