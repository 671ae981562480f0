"""The sections of numbers: rows per source and step, and lengths by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab.pages.html import bar, count, esc, percent, section, table
from graftlab.recipes.report.survey import Lengths, Survey, merged
from graftlab.recipes.report.turns import PARTS


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
    """Words by part: of every source, and of all of them where there are several."""
    several = [("all", merged(survey.lengths))] if len(survey.lengths) > 1 else []
    return section(
        "lengths",
        "Lengths by part",
        table(
            "wwnnnnnnnn",
            [
                *("part", "source", "rows", "least", "median", "95 %", "99 %", "most"),
                *("words", "tokens, about"),
            ],
            [
                [part, esc(source), *_numbers(found[part])]
                for part in PARTS
                for source, found in [*several, *sorted(survey.lengths.items())]
                if part in found
            ],
        ),
        lead="Words of one row, its turns of a part together; rows that the mix repeats count each "
        "time. No tokenizer is chosen yet: tokens are estimated as a quarter of the UTF-8 bytes, "
        "which suits English and is too few for most other scripts.",
    )


def _numbers(found: Lengths) -> list[str]:
    quantiles = [found.quantile(share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)]
    return [count(number) for number in (found.rows, *quantiles, found.total, found.tokens)]
