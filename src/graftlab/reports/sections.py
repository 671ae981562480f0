"""The parts of the page that need no script: tables of runs, replicates, importance, failures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graftlab.pages.html import attribute, bar, count, esc, folded, section, table
from graftlab.reports import table as shown
from graftlab.reports.compare import Comparison, failures
from graftlab.reports.importance import Importance
from graftlab.reports.run import ReportedRun
from graftlab.reports.values import is_number
from graftlab.tracking.ranking import MORE

COLUMNS: dict[str, tuple[str, Any]] = {
    "score": ("score", shown.loss),
    "loss": ("validation loss", shown.loss),
    "baseline": ("base", shown.loss),
    "best_step": ("best step", shown.count),
    "tokens": ("tokens", shown.count),
    "seconds": ("seconds", shown.seconds),
    "cost": ("cost", shown.money),
}
"""Attribute of a run -> the head of its column, and how it is written."""


def runs(found: Comparison) -> str:
    """All runs, best first; scripts sort and filter it by the values its cells carry."""
    heads = [_head("run", "run", ""), *(_head(key, found.names[key], "n") for key in found.keys)]
    heads += [_head(name, title, "n") for name, (title, _) in _columns(found).items()]
    heads += [_head("state", "state", "")]
    place = {id(run): n for n, run in enumerate(found.runs)}
    best = set(map(id, found.winner.runs)) if found.winner else set()
    body = "\n".join(
        _row(found, run, place[id(run)], best=id(run) in best) for run in shown.best_first(found)
    )
    tools = (
        '<div class="tools"><input id="filter" type="search" placeholder="filter" '
        'aria-label="filter runs" spellcheck="false" autocomplete="off">'
        '<span class="note" id="shown" aria-live="polite"></span></div>'
    )
    lead = (
        "Words keep the runs that hold them; <code>lr&lt;0.01</code>, <code>rank=16</code> or "
        "<code>state!=done</code> compare a column. The filter holds for every chart. A click on "
        "a head sorts; ticked runs are put side by side in Samples and Differences."
    )
    return section(
        "runs",
        "Runs",
        tools,
        f'<div class="wide tall"><table id="table"><thead><tr><th scope="col"></th>'
        f"{''.join(heads)}</tr></thead>\n<tbody>{body}</tbody></table></div>",
        lead=lead,
    )


def _number(run: ReportedRun, name: str) -> float | None:
    """A number of COLUMNS; the score as it was measured, whichever way of it is better."""
    found: float | None = run.shown if name == "score" else getattr(run, name)
    return found


def _columns(found: Comparison) -> dict[str, tuple[str, Any]]:
    """Those that say something: where runs are compared by their loss, it stands there once."""
    beside = found.ranking.is_loss
    return {name: column for name, column in COLUMNS.items() if not (beside and name == "loss")}


def _head(key: str, title: str, kind: str) -> str:
    return (
        f'<th scope="col" class="{kind}" aria-sort="none" data-key="{attribute(key)}" '
        f'title="{attribute(key)}"><button type="button">{esc(title)}</button></th>'
    )


def _row(found: Comparison, run: ReportedRun, place: int, *, best: bool) -> str:
    tick = f'<td><input type="checkbox" aria-label="choose {attribute(run.name)}"></td>'
    cells = [f'<td title="{attribute(run.folder)}">{esc(run.name)}</td>']
    cells += [_cell(run.value(key), found.shown(run, key)) for key in found.keys]
    cells += [
        _cell(value := _number(run, name), write(value), name)
        for name, (_, write) in _columns(found).items()
    ]
    why = f' title="{attribute(run.reason)}"' if run.reason else ""
    cells.append(f'<td class="state {attribute(run.state)}"{why}>{esc(run.state)}</td>')
    mark = ' class="best"' if best else ""
    return f'<tr data-run="{place}"{mark}>{tick}{"".join(cells)}</tr>'


def _cell(value: Any, text: str, kind: str = "") -> str:
    number = f' data-value="{value!r}"' if is_number(value) else ""
    return f'<td class="{f"n {kind}".strip()}"{number}>{esc(text)}</td>'


def replicates(found: Comparison) -> str:
    """Each configuration with its seeds together, against the best one."""
    if not found.replicated:
        empty = (
            '<p class="empty">Every configuration was run with one seed, so nothing can be said of '
            "chance: <code>-m sweep.seeds=3</code> repeats a run.</p>"
        )
        return section("replicates", "Replicates", empty)
    rows = [[*map(esc, row)] for row in shown.standings(found)]
    return section(
        "replicates",
        "Replicates",
        table("wnnnww", shown.STANDING, rows),
        lead="Runs that differ in nothing but the seed, together. The difference to the best is "
        "paired over shared seeds where there are two, else Welch's; a single run borrows the "
        "spread of the other.",
    )


def strengths(found: Comparison) -> list[str]:
    """The adapters at other strengths than trained, where that was measured; else no section."""
    measured = [
        (run.name, row)
        for run in shown.best_first(found)
        for row in (run.result.strengths if run.result else ())
    ]
    names = dict.fromkeys(name for _, row in measured for name in row)
    rows = [
        [esc(run), *(f"{row[name]:.4g}" if name in row else "" for name in names)]
        for run, row in measured
    ]
    lead = (
        "Each best adapter, scaled (1 is as trained) and validated again: what is gained over the "
        "base, against how far from it the model moves. In nats per token."
    )
    content = table("w" + "n" * len(names), ["run", *map(esc, names)], rows)
    return [section("strengths", "Strengths", content, lead=lead)] if rows else []


def importances(found: Comparison, told: Importance) -> str:
    """Which key matters, as bars."""
    if told.note:
        return section("importance", "Importance", f'<p class="empty">{esc(told.note)}</p>')
    columns = [("of the variance (fANOVA)", told.explained)]
    columns += [("in being among the best tenth (PED-ANOVA)", told.best)] if told.best else []
    heads = ["key", *(head for title, _ in columns for head in (title, ""))]
    rows = [
        [esc(key), *(cell for _, shares in columns for cell in _share(shares.get(key, 0.0)))]
        for key in told.explained
    ]
    return section(
        "importance",
        "Importance",
        table("w" + "nw" * len(columns), heads, rows),
        lead="The share of each key, over the configurations that were tried. It says what was "
        "seen in these ranges, not what would be elsewhere.",
    )


def _share(share: float) -> list[str]:
    return [f"{100 * share:.0f} %", bar(round(1000 * share), 1000)]


def failed(found: Comparison) -> str:
    """What did not come to its end, and why."""
    broken = failures(found.runs)
    if not broken:
        return section("failures", "Failures", '<p class="empty">None.</p>')
    rows = "\n".join(_failure(found, run) for run in broken)
    return section("failures", "Failures", rows)


def _failure(found: Comparison, run: ReportedRun) -> str:
    label = found.label(run)
    note = f' <span class="note">{esc(label)}</span>' if label else ""
    why = esc(run.reason or "no reason is known")
    title = f"<b>{esc(run.name)}</b>{note} {esc(run.state)}: {why}"
    if run.traceback:
        return folded(title, f"<pre>{esc(run.traceback)}</pre>")
    return f'<p class="failure">{title}</p>'


def tiles(found: Comparison) -> str:
    """The first numbers of the page."""
    done = sum(run.state == "done" for run in found.runs)
    ranking = found.ranking
    best = ranking.key(found.winner.interval.mean) if found.winner else None
    extreme = "highest" if ranking.better == MORE else "lowest"
    unit = f" ({esc(found.measure)})" if ranking.is_loss else ""
    bases = {run.baseline for run in found.runs if run.counts and run.baseline is not None}
    shown_tiles = [
        (count(len(found.runs)), "runs" if len(found.runs) > 1 else "run"),
        (count(done), "finished"),
        (shown.loss(best), f"{extreme} {esc(ranking.name)}{unit}"),
        (shown.loss(min(bases)) if len(bases) == 1 else "–", "of the base alone"),
        (f"{_sum(run.seconds for run in found.runs) / 3600:,.2f}", "hours of training"),
        (shown.money(_sum(run.cost for run in found.runs)), "spent"),
    ]
    cells = "".join(f"<li><b>{number}</b><span>{name}</span></li>" for number, name in shown_tiles)
    return f'<ul class="tiles">{cells}</ul>'


def _sum(numbers: Iterable[float | None]) -> float:
    return sum(number for number in numbers if number is not None)
