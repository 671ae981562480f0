"""`report.html`: one file with everything in it, Plotly's scripts included.

Python writes what can be read without a script (tables, verdict, failures); the scripts beside
this file sort and filter, draw the charts, and put chosen runs side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from graftlab import __version__
from graftlab.files.writing import write_atomic
from graftlab.pages.html import embedded, esc, section, shell
from graftlab.reports import sections
from graftlab.reports.compare import Comparison
from graftlab.reports.curves import has_rewards
from graftlab.reports.importance import Importance
from graftlab.reports.payload import payload

PAGE = "report.html"
SCRIPTS = ("page.js", "table.js", "draw.js", "charts.js", "chosen.js")
"""In this order; each is short and says in its first line what it is."""

CHARTS = {
    "curves": ("Loss curves", "Validation loss as measured, training loss smoothed."),
    "rewards": (
        "Reward curves",
        "Of runs that learn preferences: how much likelier than under the reference, in the "
        "objective's own measure, chosen and rejected answers have become; smoothed.",
    ),
    "parallel": (
        "Parallel coordinates",
        "A line is a run, an axis a key that was varied; the last one is the validation loss.",
    ),
    "maps": (
        "Pairs of keys",
        "Mean validation loss over everything else; replicates count as one. Of more than six "
        "keys, the six most important.",
    ),
    "cost": (
        "Loss against cost",
        "On the line: runs that no other is both cheaper than and better.",
    ),
}
"""Section -> title and lead of the charts that scripts draw."""


def write_page(
    found: Comparison, told: Importance, folder: Path, *, tuned: Sequence[str] = ()
) -> Path | None:
    """Write `report.html`; None where Plotly, whose scripts draw its charts, is not installed.

    `tuned` are the sections of `reports.tuned`.
    """
    if find_spec("plotly") is None:
        return None
    from plotly.offline import get_plotlyjs

    write_atomic(folder / PAGE, page(found, told, library=get_plotlyjs(), tuned=tuned))
    return folder / PAGE


def page(found: Comparison, told: Importance, *, library: str, tuned: Sequence[str] = ()) -> str:
    """The whole page; `library` is the text of plotly.js."""
    here = Path(__file__).parent
    texts = [(here / name).read_text(encoding="utf-8") for name in SCRIPTS]
    parts = [
        *tuned,
        sections.runs(found),
        _chart("curves"),
        *([_chart("rewards")] if any(map(has_rewards, found.runs)) else []),
        *(_chart(name) for name in ("parallel", "maps")),
        sections.importances(found, told),
        _chart("cost"),
        *sections.strengths(found),
        sections.replicates(found),
        _empty("samples", "Samples", "Tick runs in the table: their replies stand side by side."),
        _empty("differences", "Differences", "Tick two runs: what is not the same in them."),
        sections.failed(found),
    ]
    body = "\n".join(
        [
            "<h1>Runs compared</h1>",
            f'<p class="sub verdict">{esc(found.sentence())}</p>',
            sections.tiles(found),
            _contents(parts),
            *parts,
            f"<footer>graftlab {esc(__version__)}. Losses: {esc(found.measure)}. Seconds are "
            "those of training steps; cost is the whole run at the price of its device.</footer>",
            embedded("data", payload(found, told)),
        ]
    )
    style = (here / "page.css").read_text(encoding="utf-8")
    return shell("Runs compared", body, style=style, scripts=[library, *texts])


def _contents(parts: list[str]) -> str:
    """Links to the sections, read off them."""
    links = []
    for part in parts:
        name = part.split('id="', 1)[1].split('"', 1)[0]
        title = part.split("<h2>", 1)[1].split("</h2>", 1)[0]
        links.append(f'<a href="#{name}">{title}</a>')
    return f"<nav>{''.join(links)}</nav>"


def _chart(name: str) -> str:
    title, lead = CHARTS[name]
    content = (
        f'<div class="tools" data-for="{name}"></div><div class="chart" id="{name}-chart"></div>'
    )
    return section(name, title, content, lead=lead)


def _empty(name: str, title: str, lead: str) -> str:
    return section(name, title, f'<div id="{name}-chosen"></div>', lead=lead)
