"""The sections of findings: what repeats, languages and characters, and near-duplicates."""

from __future__ import annotations

from collections import Counter

from graftlab.pages.html import bar, count, esc, folded, percent, section, table
from graftlab.recipes.report.language import SHORT, script
from graftlab.recipes.report.losses import Losses
from graftlab.recipes.report.phrases import NGRAM, OPENING
from graftlab.recipes.report.row_sampling import PARTS
from graftlab.recipes.report.signs import SIGNS
from graftlab.recipes.report.survey import SAMPLE, Sighting, Survey
from graftlab.recipes.report.turns import place, turns

_OPENINGS, _RUNS, _SCRIPTS = 12, 20, 12


def sample_of(survey: Survey) -> str:
    """What the sample is, in words."""
    rows, whole = survey.phrases.rows, survey.rows.total()
    if rows == whole:
        return f"all {count(whole)} rows"
    if rows < SAMPLE:
        return f"the {count(rows)} different rows among {count(whole)}"
    return f"a sample of {count(rows)} different rows of {count(whole)}, drawn by hash"


def repeats(survey: Survey) -> str:
    """Openings of every part, and n-grams of the answers."""
    phrases = survey.phrases
    openings = [
        f"<h3>Openings: {part}</h3>"
        + _ranked(phrases.openings[part].top(_OPENINGS), phrases.texts[part])
        for part in PARTS
        if part in phrases.openings
    ]
    forgotten = (
        f'<p class="note">Those of {phrases.runs.floor} rows or fewer may be missing.</p>'
        if phrases.runs.floor
        else ""
    )
    return section(
        "repeats",
        "What repeats",
        *openings,
        f"<h3>Runs of {NGRAM} words or more in answers</h3>",
        _ranked(phrases.top_runs(_RUNS), phrases.answers),
        forgotten,
        lead=f"In how many rows a text begins with the same {OPENING} words, or an answer holds "
        f"the same {NGRAM}; in lower case, without punctuation. An answer that several "
        f"rows share counts once. Counted in {sample_of(survey)}.",
    )


def _ranked(found: list[tuple[str, int]], rows: int) -> str:
    if not found:
        return '<p class="empty">None that is in two rows or more.</p>'
    return table(
        "nnww",
        ["rows", "share", "", "words"],
        [
            [
                count(number),
                percent(number, rows),
                bar(number, found[0][1]),
                f'<span class="phrase">{esc(phrase)}</span>',
            ]
            for phrase, number in found
        ],
    )


def characters(survey: Survey) -> str:
    """Guessed languages, scripts, and signs of damage with examples."""
    return section(
        "characters",
        "Languages and characters",
        "<h3>Languages of the answers</h3>",
        '<p class="lead">A guess by small words of English, German, French, Spanish, Italian, '
        f"Portuguese and Dutch, in {sample_of(survey)}.</p>",
        _languages(survey),
        "<h3>Characters beyond ASCII</h3>",
        _scripts(survey.characters),
        "<h3>Signs of damage, and addresses</h3>",
        '<p class="lead">In every row; many are right where they stand, so look at them.</p>',
        _signs(survey),
        *(_examples(survey, sign.name) for sign in SIGNS if sign.name in survey.signs),
    )


def _languages(survey: Survey) -> str:
    ranked = sorted(survey.languages.items(), key=lambda item: (-item[1].total(), item[0]))
    whole, usual = survey.phrases.rows, ranked[0][0] if ranked else ""

    def heard(language: str) -> str:
        if language in (usual, SHORT):
            return ""
        told = survey.speakers[language].drawn()
        return "<br>".join(f"{place(row.place)} {esc(row.beginning)}" for row in told)

    return table(
        "wnnwww",
        ["guess", "rows", "share", "", "sources", "such as"],
        [
            [
                esc(language),
                count(sources.total()),
                percent(sources.total(), whole),
                bar(sources.total(), whole),
                _sources(sources),
                heard(language),
            ]
            for language, sources in ranked
        ],
    )


def _sources(sources: Counter[str]) -> str:
    return ", ".join(f"{esc(name)} {count(rows)}" for name, rows in sorted(sources.items()))


def _scripts(characters: Counter[str]) -> str:
    if not characters:
        return '<p class="empty">None: everything is ASCII.</p>'
    kinds: dict[str, Counter[str]] = {}
    for character, number in characters.items():
        kinds.setdefault(script(character), Counter())[character] += number
    ranked = sorted(kinds.items(), key=lambda item: (-item[1].total(), item[0]))
    whole = characters.total()
    return table(
        "wnnww",
        ["kind", "characters", "share", "", "most frequent"],
        [
            [
                esc(kind),
                count(found.total()),
                percent(found.total(), whole),
                bar(found.total(), whole),
                " ".join(esc(one) for one, _ in _top(found, 12)),
            ]
            for kind, found in ranked[:_SCRIPTS]
        ],
    )


def _top(found: Counter[str], number: int) -> list[tuple[str, int]]:
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:number]


def _signs(survey: Survey) -> str:
    whole = survey.rows.total()

    def row(name: str, meaning: str) -> list[str]:
        found = survey.signs.get(name)
        rows = found.sources.total() if found else 0
        note = f'<span class="note">{esc(meaning)}</span>'
        if not found:
            return [name, "·", "", "", note]
        return [name, count(rows), percent(rows, whole), _sources(found.sources), note]

    return table(
        "wnnww",
        ["sign", "rows", "share", "sources", "what it is"],
        [row(sign.name, sign.meaning) for sign in SIGNS],
    )


def _examples(survey: Survey, name: str) -> str:
    shown = "".join(f"<li>{_sighting(one)}</li>" for one in survey.signs[name].examples.drawn())
    number = count(survey.signs[name].sources.total())
    return folded(f"<b>{esc(name)}</b>, {number} rows", f'<ul class="seen">{shown}</ul>')


def _sighting(one: Sighting) -> str:
    return (
        f"{place(one.place, one.source)}<br>"
        f"{esc(one.before)}<mark>{esc(one.found)}</mark>{esc(one.after)}"
    )


def duplicates(losses: Losses) -> str:
    """Dropped near-duplicates beside the rows that they are like."""
    lead = (
        "None was dropped."
        if not losses.near
        else f"Rows dropped as nearly the same as an earlier one: {count(losses.near)}. "
        f"{'Some of them' if losses.near > len(losses.twins) else 'Each'} beside the row that "
        "stayed, which is found by its likeness: shared runs of three words over all."
    )
    pairs = []
    for twin in losses.twins:
        kept = (
            turns(twin.kept)
            if twin.kept is not None
            else '<p class="empty">Not among the rows that are written: a later step dropped or '
            "changed it.</p>"
        )
        dropped = place(twin.dropped.origin, twin.dropped.source)
        pairs.append(
            f"<h3>{esc(twin.similarity)} alike</h3>"
            f'<div class="pair"><div class="row">Dropped: {dropped}{turns(twin.dropped.turns)}'
            f'</div><div class="row">Kept: {place(twin.origin, twin.place)}{kept}</div></div>'
        )
    return section("duplicates", "Near-duplicates", *pairs, lead=lead)
