"""The prompts of the page: in which order, and each with its replies and scores."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from graftlab.evaluation.page.preferences import preferred
from graftlab.evaluation.wording import label
from graftlab.pages.html import esc, folded

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Judged, Said
    from graftlab.evaluation.results import Name, Results

ALIKE = 0.3
"""Replies less alike than this share no marks: nearly every word would have one."""
LONGEST = 600
"""Words of a reply that are compared."""
SHOWN = 600
"""Characters of a prompt that are shown at once."""
ALL = "all measures"


def orders(found: Results) -> Iterator[tuple[str, list[float]]]:
    """(what is looked at, how much better each prompt is by it), all measures together first.

    Against the first model; where there is one alone, against its own mean.
    """
    each = dict(_differences(found))
    sizes = {name: max(map(abs, values), default=0.0) or 1.0 for name, values in each.items()}
    yield (
        ALL,
        [
            round(sum(values[place] / sizes[name] for name, values in each.items()), 4)
            for place in range(len(found.prompts))
        ],
    )
    for name, values in each.items():
        yield name, [round(value, 4) for value in values]


def ordered(found: Results) -> list[int]:
    """Places of the prompts, those with the largest differences first, worst before best."""
    (_, values), *_ = orders(found)
    return sorted(range(len(values)), key=lambda place: (-abs(values[place]), values[place], place))


def _differences(found: Results) -> Iterator[tuple[str, list[float]]]:
    first, *others = found.replies
    for model in others or [first]:
        for name, measure in found.measures.items():
            if measure.better is None:
                continue
            sign = 1 if measure.better == "more" else -1
            own = found.values(model, name)
            if others:
                against = found.values(first, name)
            else:
                mean = found.means.get((model, name))
                against = [mean.mean if mean else None] * len(own)
            told = label(*name, measure)
            yield (
                f"{model}: {told}",
                [
                    0.0 if one is None or other is None else sign * (one - other)
                    for one, other in zip(own, against, strict=True)
                ],
            )


def row(found: Results, place: int) -> str:
    """One prompt."""
    prompt = found.prompts[place]
    turns = "".join(
        f'<div class="turn {esc(message.role)}"><div class="part">{esc(message.role)}</div>'
        f"{_long(message.text)}</div>"
        for message in prompt.conversation.messages
    )
    cells = []
    if prompt.options:
        listed = "\n".join(f"• {option}" for option in prompt.options)
        cells.append(_cell("options", _said(esc(listed))))
    if prompt.expected is not None:
        cells.append(_cell("reference", _said(esc(prompt.expected))))
    first = next(iter(found.replies))
    for model, by_prompt in found.replies.items():
        for draw, said in enumerate(by_prompt[place]):
            other = found.replies[first][place][draw].text
            text = esc(said.text) if model == first else marked(said.text, other)
            scores = {name: found.scores[model][name[0]][place][draw] for name in found.measures}
            several = len(by_prompt[place]) > 1
            head = f"{model}, draw {draw + 1}" if several else model
            cells.append(_cell(head, _said(text) + _scores(found, scores, _caption(said))))
    return (
        f'<article class="row case" data-place="{place}">'
        f'<div class="place">{esc(prompt.conversation.where)}</div>{turns}'
        f'<div class="cells">{"".join(cells)}</div>{preferred(found, place)}</article>'
    )


def marked(text: str, other: str) -> str:
    """`text` as HTML, with marks on words that `other` does not have in that place."""
    mine, its = (re.findall(r"\s*\S+\s*", one) for one in (text, other))
    if max(len(mine), len(its)) > LONGEST:
        return esc(text)
    words, others = ([word.strip() for word in one] for one in (mine, its))
    matcher = SequenceMatcher(None, others, words, autojunk=False)
    if matcher.quick_ratio() < ALIKE or matcher.ratio() < ALIKE:
        return esc(text)
    parts = []
    for kind, _, _, start, end in matcher.get_opcodes():
        piece = esc("".join(mine[start:end]))
        parts.append(piece if kind == "equal" or not piece else f"<mark>{piece}</mark>")
    return "".join(parts)


def _scores(found: Results, scores: dict[Name, Judged], caption: str) -> str:
    """The scores that are judged, then the others, folded under the caption."""

    def told(name: Name) -> str:
        value = scores[name][name[1]]
        number = "–" if value is None else f"{value:.4g}"
        return f"{esc(label(*name, found.measures[name]))} <b>{number}</b>"

    judged = " · ".join(told(name) for name, one in found.measures.items() if one.better)
    rest = "<br>".join(told(name) for name, one in found.measures.items() if not one.better)
    shown = f'<div class="scores">{judged}</div>' if judged else ""
    return shown + folded(caption, f'<div class="scores">{rest}</div>')


def _caption(said: Said) -> str:
    end = "" if said.stopped else ", cut at the limit"
    tokens = f"{said.num_tokens} tokens" if said.num_tokens else "tokens not counted"
    return f"{tokens}{end}"


def _cell(head: str, content: str) -> str:
    return f'<div class="cell"><div class="part">{esc(head)}</div>{content}</div>'


def _said(html: str) -> str:
    return f'<div class="said">{html}</div>'


def _long(text: str) -> str:
    """A turn of a prompt, the most of a long one folded away."""
    if len(text) <= SHOWN:
        return _said(esc(text))
    start = f"{esc(text[:SHOWN])}… "
    return f"<div>{_said(start)}{folded('all of it', _said(esc(text)))}</div>"
