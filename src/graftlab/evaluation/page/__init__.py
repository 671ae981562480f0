"""`report.html`: verdicts, means, and every prompt with its replies side by side, in one file.

Python writes everything that is read, the cases that differ most first; the script beside this file
searches and sorts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab import __version__
from graftlab.evaluation.page.cases import ordered, orders, row
from graftlab.evaluation.page.preferences import preferences
from graftlab.evaluation.wording import bounds, how_many, label, number, words
from graftlab.pages.html import attribute, count, embedded, esc, folded, section, shell, table

if TYPE_CHECKING:
    from graftlab.evaluation.results import Results

MOST = 2000
"""Prompts that are shown, those that differ most; replies.jsonl has all."""


EACH = (
    " p is adjusted for all of them together (Holm), and each interval holds by itself: one "
    "without 0 may be no verdict."
)
EARLY = (
    " Asking could stop at any time for what was seen: p-values and these intervals allow for that "
    "(betting, arXiv 2010.09686), those of the means do not."
)


def page(found: Results) -> str:
    """The whole page."""
    here = Path(__file__).parent
    places = ordered(found)[:MOST]
    body = "\n".join(
        [
            "<h1>Replies compared</h1>",
            f'<p class="sub">{esc(_asked(found))}</p>',
            _tiles(found),
            '<nav><a href="#verdicts">Verdicts</a><a href="#means">Means</a>'
            '<a href="#prompts">Prompts</a><a href="#models">Models</a></nav>',
            _verdicts(found),
            preferences(found),
            _means(found),
            _prompts(found, places),
            _models(found),
            f"<footer>graftlab {esc(__version__)}. Intervals hold with 95 % each; verdicts are "
            "adjusted together (Holm). All replies and scores: replies.jsonl, all numbers: "
            "results.json.</footer>",
            embedded(
                "orders", {name: [values[p] for p in places] for name, values in orders(found)}
            ),
        ]
    )
    style = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    return shell("Replies compared", body, style=style, scripts=[script])


def _asked(found: Results) -> str:
    generation = found.settings["generation"]
    temperature = generation["temperature"]
    how = f"temperature {temperature:g}" if temperature else "greedy"
    draws = found.settings["draws"]
    several = f", {draws} draws each" if draws > 1 else ""
    return (
        f"{found.settings['asked']}: {how_many(found)}{several}, {how}, at "
        f"most {generation['max_new_tokens']} tokens."
    )


def _tiles(found: Results) -> str:
    told = [verdict.word for verdict in found.verdicts.values() if verdict.word]
    settled = sum(word in ("better", "worse") for word in told)
    replies = sum(len(draws) for by_prompt in found.replies.values() for draws in by_prompt)
    tiles = [
        (count(len(found.replies)), "models"),
        (count(len(found.prompts)), "prompts"),
        (count(replies), "replies"),
        (f"{settled} of {len(told)}", "comparisons settled"),
    ]
    shown = "".join(f"<li><b>{number}</b><span>{name}</span></li>" for number, name in tiles)
    return f'<ul class="tiles">{shown}</ul>'


def _verdicts(found: Results) -> str:
    rows: list[list[str]] = []
    same: list[list[str]] = []
    others: list[list[str]] = []
    for (first, second, name), verdict in found.verdicts.items():
        measure, difference = found.measure(name), verdict.contrast.difference
        p = "–" if verdict.adjusted is None else f"{verdict.adjusted:.3g}"
        cells = [
            esc(second),
            esc(first),
            f'<span title="{attribute(measure.about)}">{esc(label(*name, measure))}</span>',
            esc(number(difference.mean, measure, signed=True)),
            esc(bounds(difference, measure, signed=True)),
        ]
        if verdict.word:
            kind = {"better": "up", "worse": "down"}.get(verdict.word, "open")
            told = [*cells, p, f'<span class="{kind}">{esc(words(verdict))}</span>']
            (rows if verdict.contrast.moved else same).append(told)
        else:
            others.append(cells)
    heads = ["model", "against", "measure", "difference", "95 % interval"]
    content = []
    if rows:
        content.append(table("wwwnnnw", [*heads, "p (Holm)", "verdict"], rows))
    if same:
        title = f"The same on every prompt ({len(same)})"
        content.append(folded(title, table("wwwnnnw", [*heads, "p (Holm)", "verdict"], same)))
    if others:
        title = f"Measures of which neither end is better ({len(others)})"
        content.append(folded(title, table("wwwnn", heads, others), shown=not rows))
    lead = "Differences on the same prompts." if content else "One model: nobody to compare with."
    lead += EARLY if found.early is not None else EACH if content else ""
    return section("verdicts", "Verdicts", *content, lead=lead)


def _means(found: Results) -> str:
    rows = []
    for name, measure in found.measures.items():
        cells = []
        for model in found.replies:
            mean = found.means.get((model, name))
            told = (number(mean.mean, measure), bounds(mean, measure)) if mean else ("–", "")
            cells.append(f'{esc(told[0])} <span class="note">{esc(told[1])}</span>')
        rows.append([esc(label(*name, measure)), esc(measure.about), *cells])
    heads = ["measure", "of", *(esc(model) for model in found.replies)]
    lead = "Mean over prompts with its 95 % interval. ↑ more is better, ↓ less is better."
    return section("means", "Means", table("ww" + "n" * len(found.replies), heads, rows), lead=lead)


def _prompts(found: Results, places: list[int]) -> str:
    left = len(found.prompts) - len(places)
    more = f" {count(left)} more are in replies.jsonl." if left else ""
    tools = (
        '<div class="tools"><input id="search" type="search" placeholder="search" '
        'aria-label="search"> <select id="by" aria-label="measure"></select> '
        '<select id="order" aria-label="order"></select> '
        '<span id="shown" class="note"></span></div>'
    )
    lead = (
        "Those that differ most come first; words that the first model does not say are marked "
        f"where replies are alike.{more}"
    )
    cases = "\n".join(row(found, place) for place in places)
    return section("prompts", "Prompts", tools, f'<div id="cases">{cases}</div>', lead=lead)


def _models(found: Results) -> str:
    rows = []
    for model, told in found.models.items():
        about = "; ".join(f"{key} {value}" for key, value in told.items())
        rows.append([esc(model), esc(about)])
    return section("models", "Models", table("ww", ["name", "what it is"], rows))
