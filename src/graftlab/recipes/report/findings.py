"""The sections of findings: what repeats, and characters that seldom belong there."""

from __future__ import annotations

import unicodedata
from collections import Counter

from graftlab.pages.html import bar, count, esc, folded, percent, section, table
from graftlab.recipes.report.phrases import NGRAM, OPENING, top
from graftlab.recipes.report.signs import SIGNS
from graftlab.recipes.report.survey import SAMPLE, Sighting, Survey
from graftlab.recipes.report.turns import PARTS, place

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
        + _ranked(top(phrases.openings[part], _OPENINGS), phrases.texts[part])
        for part in PARTS
        if part in phrases.openings
    ]
    return section(
        "repeats",
        "What repeats",
        *openings,
        f"<h3>Runs of {NGRAM} words or more in answers</h3>",
        _ranked(phrases.top_runs(_RUNS), phrases.answers),
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
    """Kinds of characters, and signs of damage with examples."""
    return section(
        "characters",
        "Characters",
        "<h3>Characters beyond ASCII</h3>",
        _scripts(survey.characters),
        "<h3>Signs of damage, and addresses</h3>",
        '<p class="lead">In every row; many are right where they stand, so look at them.</p>',
        _signs(survey),
        *(_examples(survey, sign.name) for sign in SIGNS if sign.name in survey.signs),
    )


def _sources(sources: Counter[str]) -> str:
    return ", ".join(f"{esc(name)} {count(rows)}" for name, rows in sorted(sources.items()))


def _scripts(characters: Counter[str]) -> str:
    if not characters:
        return '<p class="empty">None: everything is ASCII.</p>'
    kinds: dict[str, Counter[str]] = {}
    for character, number in characters.items():
        kinds.setdefault(_kind(character), Counter())[character] += number
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
                " ".join(esc(one) for one, _ in top(found, 12, least=1)),
            ]
            for kind, found in ranked[:_SCRIPTS]
        ],
    )


def _kind(character: str) -> str:
    """Latin, Cyrillic, CJK ...; for what is no letter, the kind of sign."""
    category = unicodedata.category(character)[0]
    if category in "LM":
        name = unicodedata.name(character, "unnamed").split()[0].split("-")[0]
        return "CJK" if name == "CJK" else name.capitalize()
    return _KINDS.get(category, "other")


_KINDS = {"P": "punctuation", "S": "symbols and emoji", "N": "digits", "Z": "spaces"}


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
