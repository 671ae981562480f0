"""The sections of numbers: rows per source and step, and lengths by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab.pages.html import bar, count, esc, percent, section, table
from graftlab.recipes.report.charts import edges, histogram
from graftlab.recipes.report.row_sampling import PARTS
from graftlab.recipes.report.survey import Lengths, Survey, merged

_CHARTED = 12
"""Sources that get histograms of their own: the largest."""


def counts(manifest: Mapping[str, Any]) -> str:
    """What every step took, dropped and gave; what of every source is left; the inputs."""
    return section(
        "counts",
        "Rows per source and step",
        _steps(manifest["steps"]),
        "<h3>What is written</h3>",
        _written(manifest["result"]),
        "<h3>What was read</h3>",
        _inputs(manifest["inputs"]),
        lead="In the order of the walk. Out is more than kept where one row becomes several, as in "
        "variations, or where the mix repeats a source.",
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    sources = list(dict.fromkeys(name for step in steps for name in step["sources"]))
    several = len(sources) > 1
    heads = ["step", "in", "kept", "dropped", "", "out"]
    heads += [f"{esc(name)}, in → out" for name in sources] if several else []

    def rows() -> Iterator[list[str]]:
        for step in steps:
            dropped = sum(step["dropped"].values())
            cells = [esc(step["step"]), count(step["in"]), count(step["kept"])]
            cells += [count(dropped) if dropped else "·"]
            cells += [bar(dropped, step["in"]) if dropped else "", count(step["out"])]
            yield cells + [_passed(step["sources"].get(name)) for name in sources if several]

    return table("wnnnwn" + "n" * (len(heads) - 6), heads, rows())


def _passed(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "·"
    if found["in"] == found["out"]:
        return count(found["in"])
    return f"{count(found['in'])} → {count(found['out'])}"


def _written(result: Mapping[str, Any]) -> str:
    sources = list(dict.fromkeys(name for side in result.values() for name in side["sources"]))
    return table(
        "wn" + "n" * len(sources) + "n",
        ["file", "rows", *map(esc, sources), "bytes"],
        [
            [
                esc(f"{side}.jsonl"),
                count(found["rows"]),
                *(_part(found["sources"].get(name, 0), found["rows"]) for name in sources),
                count(found["bytes"]),
            ]
            for side, found in result.items()
        ],
    )


def _part(rows: int, whole: int) -> str:
    return f'{count(rows)} <span class="note">{percent(rows, whole)}</span>' if rows else "·"


def _inputs(inputs: Sequence[Mapping[str, Any]]) -> str:
    if not inputs:
        return '<p class="empty">Nothing: every row was made.</p>'
    return table(
        "wwnw",
        ["for", "file", "bytes", "sha256"],
        [
            [
                esc(found["source"]),
                esc(Path(found["file"]).name),
                count(found["bytes"]),
                f"<code>{esc(found['sha256'][:12])}…</code>",
            ]
            for found in inputs
        ],
    )


def lengths(survey: Survey) -> str:
    """Words by part: a table over all sources, and histograms for each."""
    whole = dict(merged(survey.lengths))
    parts = [part for part in PARTS if part in whole]
    return section(
        "lengths",
        "Lengths by part",
        table(
            "wnnnnnnnn",
            ["part", "rows", "least", "median", "95 %", "99 %", "most", "words", "tokens, about"],
            [[part, *_numbers(whole[part])] for part in parts],
        ),
        _multiples(survey, parts),
        lead="Words of one row, its turns of a part together; rows that the mix repeats count each "
        "time. No tokenizer is chosen yet: tokens are estimated as a quarter of the UTF-8 bytes, "
        "which suits English and is too few for most other scripts.",
    )


def _numbers(found: Lengths) -> list[str]:
    quantiles = [found.quantile(share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)]
    return [count(number) for number in (found.rows, *quantiles, found.total, found.tokens)]


def _multiples(survey: Survey, parts: Sequence[str]) -> str:
    """A histogram for every source and part, all with one axis."""
    longest = max((max(found.words) for _, found in merged(survey.lengths)), default=1)
    bins = edges(longest)
    names = [name for name, _ in survey.rows.most_common(_CHARTED)]

    def cell(source: str, part: str) -> str:
        found = survey.lengths[source].get(part)
        if found is None:
            return '<td class="empty">none</td>'
        name = f"{source}, {part}"
        drawn = histogram(found.words, bins, median=found.quantile(0.5), name=name)
        return f"<td>{drawn}</td>"

    rows = "\n".join(
        f'<tr><th scope="row">{esc(name)}</th>{"".join(cell(name, part) for part in parts)}</tr>'
        for name in names
    )
    heads = "".join(f'<th scope="col">{part}</th>' for part in parts)
    left = len(survey.rows) - len(names)
    more = f'<p class="note">{left} smaller sources are not drawn.</p>' if left else ""
    return (
        f'<div class="wide"><table class="charts"><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="note">Across: words, each mark four times the one before. Up: rows, each chart '
        f"for itself. Dashed: the median.</p>{more}"
    )
