"""`teacher=rules`: parts of speech and word lists, offline, the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graftlab.recipes.tagging import require_tagger
from graftlab.recipes.teachers.base import Miss, Teacher, TeacherSpec
from graftlab.registry import choice

DIALECT = "dialect"
"""Reason of a miss: too much of a text is in a spelling that dialect.py cannot read."""

MOST_UNREAD = 0.15
"""Share of such words, in the worst paragraph, up to which the rules still read a text."""


@choice("rules")
@dataclass(kw_only=True, slots=True)
class RulesTeacher(TeacherSpec):
    """Rewrites English prose by rule; see dialect.py, neutral.py, dropout.py and abstract.py."""

    def check(self) -> None:
        require_tagger()

    def build(self) -> Teacher:
        """Itself. Raises ConfigError with the install line when the tagger is not installed."""
        from graftlab.recipes.tagging import tag_sentence

        tag_sentence("Here.")
        return self

    def rewrite(self, texts: Sequence[str], variation: str) -> list[str | Miss]:
        from graftlab.recipes.abstract import replace_nouns
        from graftlab.recipes.dialect import standard_english, unread
        from graftlab.recipes.dropout import drop_description
        from graftlab.recipes.neutral import plain_text

        rules = {"neutral": plain_text, "dropout": drop_description, "abstract": replace_nouns}
        found: list[str | Miss] = []
        for text in texts:
            share = unread(text)
            if share > MOST_UNREAD:
                found.append(Miss(DIALECT, f"{share:.0%} of a paragraph's words are in no table"))
            else:
                made = rules[variation](standard_english(text))
                found.append(made or Miss("nothing left by the rules"))
        return found
