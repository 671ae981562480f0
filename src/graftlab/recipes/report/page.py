"""The page: its head, what stands out, the sections, and the rows themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from graftlab.pages.html import count, esc, folded, percent, section, shell
from graftlab.recipes.mix import MANY
from graftlab.recipes.report.figures import counts, lengths
from graftlab.recipes.report.findings import characters, repeats
from graftlab.recipes.report.losses import EXAMPLES, LossGroup
from graftlab.recipes.report.phrases import top
from graftlab.recipes.report.signs import SIGNS
from graftlab.recipes.report.survey import SHOWN, Survey, merged

SECTIONS = {
    "counts": "Rows per source and step",
    "lengths": "Lengths",
    "repeats": "What repeats",
    "characters": "Characters",
    "dropped": "Dropped rows",
    "rows": "Random rows",
}
"""Anchor -> its name in the list of contents."""


def page(manifest: Mapping[str, Any], losses: Sequence[LossGroup], survey: Survey) -> str:
    """The whole report as HTML that needs nothing else."""
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in SECTIONS.items())
    body = "\n".join(
        [
            _head(manifest, losses, survey),
            f"<nav>{links}</nav>",
            counts(manifest),
            lengths(survey),
            repeats(survey),
            characters(survey),
            _dropped(losses),
            _rows(survey),
            f"<footer>graftlab {esc(manifest['graftlab'])}, seed {manifest['seed']}. Examples are "
            "drawn by a hash of the row and the seed; rows that are repeated have one lot. All "
            "parameters are in manifest.json, all dropped rows in rejects.jsonl.</footer>",
        ]
    )
    return shell("Data set report", body)


def _head(manifest: Mapping[str, Any], losses: Sequence[LossGroup], survey: Survey) -> str:
    whole = merged(survey.lengths).values()
    tiles = [
        *(
            (count(found["rows"]), f"rows in {esc(side)}.jsonl")
            for side, found in manifest["result"].items()
        ),
        (count(manifest["rejects"]["rows"]), "rows dropped"),
        (count(sum(found.total for found in whole)), "words"),
        (count(sum(found.tokens for found in whole)), "tokens, about"),
    ]
    shown = "".join(f"<li><b>{number}</b><span>{name}</span></li>" for number, name in tiles)
    points = "".join(f"<li>{point}</li>" for point in _points(manifest, losses, survey))
    return (
        "<h1>Data set report</h1>\n"
        f'<p class="sub">What was prepared, from {_named(manifest)}.</p>\n'
        f'<ul class="tiles">{shown}</ul>\n<h3>What stands out</h3>\n<ul class="seen">{points}</ul>'
    )


def _named(manifest: Mapping[str, Any]) -> str:
    sources = [esc(name) for name in manifest["sources"]]
    return f"{'source' if len(sources) == 1 else 'sources'} {', '.join(sources)}"


def _points(
    manifest: Mapping[str, Any], losses: Sequence[LossGroup], survey: Survey
) -> Iterator[str]:
    """The first things to know, each with a link to more."""
    into = {step["step"]: step["in"] for step in manifest["steps"]}
    groups = sorted((g for g in losses if not g.parts), key=lambda g: -g.rows)
    for group in groups[:4]:
        yield (
            f'<a href="#dropped">{esc(group.step)}: {esc(group.reason)}</a> took '
            f"{count(group.rows)} rows, {percent(group.rows, into.get(group.step, 0))} of that step"
        )
    mixes = (step["sources"].items() for step in manifest["steps"] if step["step"] == "mix")
    for name, found in chain.from_iterable(mixes):
        if found["out"] > MANY * found["in"]:
            yield (
                f'<a href="#counts">{count(found["in"])} rows of {esc(name)}</a> are repeated '
                f"{found['out'] / found['in']:.3g} times each in train.jsonl"
            )
    for part, openings in survey.phrases.openings.items():
        for phrase, rows in top(openings, 1):
            if 20 * rows >= (whole := survey.phrases.texts[part]) > 1:
                yield (
                    f'<a href="#repeats">{percent(rows, whole)} of rows</a>: the {part} part '
                    f'begins with <span class="phrase">{esc(phrase)}</span>'
                )
    seen = [
        f"{sign.name} in {count(survey.signs[sign.name].sources.total())}"
        for sign in SIGNS
        if sign.name in survey.signs
    ]
    if seen:
        yield f'<a href="#characters">Signs of damage</a>: {"; ".join(seen)} rows'
    else:
        yield "No signs of damage, and no addresses"


def _dropped(losses: Sequence[LossGroup]) -> str:
    """Every step and reason with its number and a few rows."""
    steps: dict[str, list[LossGroup]] = {}
    for group in losses:
        steps.setdefault(group.step, []).append(group)
    content = []
    for step, groups in steps.items():
        content.append(f"<h3>{esc(step)}</h3>")
        content += [_group(group) for group in sorted(groups, key=lambda g: (-g.rows, g.reason))]
    lead = f"By step and reason, up to {EXAMPLES} of each; all of them are in rejects.jsonl."
    return section("dropped", "Dropped rows", *content, lead=lead if content else "None.")


def _group(group: LossGroup) -> str:
    what = "parts of rows" if group.parts else "rows"
    sources = ", ".join(f"{esc(name)} {count(n)}" for name, n in sorted(group.sources.items()))
    rows = "\n".join(row.html() for row in group.examples.drawn())
    note = f'<span class="note">{sources}</span>'
    return folded(f"<b>{esc(group.reason)}</b>, {count(group.rows)} {what} {note}", rows)


def _rows(survey: Survey) -> str:
    """A few rows of every source."""
    content = []
    for number, (source, drawn) in enumerate(sorted(survey.shown.items())):
        rows = "\n".join(row.html() for row in drawn.drawn())
        title = f"<b>{esc(source)}</b>, {count(survey.rows[source])} rows"
        content.append(folded(title, rows, shown=number == 0))
    return section(
        "rows",
        "Random rows",
        *content,
        lead=f"Up to {SHOWN} of every source, drawn from everything that is written. Read them: "
        "no number replaces it.",
    )
