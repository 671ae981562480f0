"""A judge's verdicts on every two replies, each asked for in both orders (arXiv 2306.05685).

shown first, second   choice    shown second, first   choice      value
a, b                  1         b, a                  2           a is preferred
a, b                  1         b, a                  1           a tie: it named a place
a, b                  1         b, a                  unreadable  none
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import GraftlabError, counted
from graftlab.evaluation.pairs import no_preferences, pairs_of
from graftlab.evaluation.preferences import Preference
from graftlab.generation.prompts import Prompt
from graftlab.progress import Progress
from graftlab.types import Conversation, Message

if TYPE_CHECKING:
    from rich.console import Console

    from graftlab.evaluation.judges.base import PromptedJudge
    from graftlab.evaluation.results import Results
    from graftlab.evaluation.speakers import Speaker
    from graftlab.text.frame import Frame

_VERDICT = re.compile(r"\bverdict\b[\s:*_`=\[({\"']*(?:is\s+)?(?:reply\s+)?([012]|tie\b)", re.I)
_ALONE = re.compile(r"[\s*_`\[(]*([012]|tie)[\s*_`\]).]*", re.I)


def judged(
    judge: PromptedJudge, found: Results, *, seed: int, cache: Path, console: Console
) -> tuple[Preference, str | None]:
    """What the judge prefers, and why some pairs were not judged, if so.

    What it said is in `cache`: the same command asks only for the rest. Raises ConfigError or
    ModelError where there is no judge.
    """
    pairs = list(pairs_of(found, seed=seed))
    random.Random(seed).shuffle(pairs)  # of all of them alike, if it ends before all are judged
    frame = judge.frame()
    asked = [
        _asked(found.prompts[pair.place], frame, texts, reference=judge.reference)
        for pair in pairs
        for texts in (pair.texts, pair.texts[::-1])
    ]
    failed = None
    with judge.opened(cache) as speaker:
        try:
            with Progress("judge", total=len(asked), console=console) as progress:
                speaker.replies(asked, draws=1, report=lambda count, _: progress.advance(count))
        except GraftlabError as error:
            failed = f"judge: {error}"
        answers = [speaker.kept(prompt) for prompt in asked]
    choices = [
        None if said is None or not said.stopped else chosen_in(said.text) for said in answers
    ]
    missing = sum(said is None for said in answers)
    values, counts = no_preferences(found), Counter[str]()
    for number, pair in enumerate(pairs):
        first, second = choices[2 * number : 2 * number + 2]
        counts.update(f"chose {choice}" for choice in (first, second))
        if first is None or second is None:
            continue
        value = pair.value(first), -pair.value(second)
        counts["both"] += 1
        counts["agree"] += value[0] == value[1]
        counts["same place"] += first == second != 0
        counts["same reply"] += value[0] == value[1] != 0
        values[pair.models][pair.place] = value[0] if value[0] == value[1] else 0.0
    return _preference(speaker, values, counts, of=len(pairs), missing=missing), failed


def chosen_in(text: str) -> int | None:
    """1, 2 or 0 of what a judge says: behind its last `VERDICT`, or all that it says."""
    found = _VERDICT.findall(text) or [m[1] for m in [_ALONE.fullmatch(text)] if m is not None]
    if not found:
        return None
    return 0 if found[-1].lower() == "tie" else int(found[-1])


def _asked(prompt: Prompt, frame: Frame, texts: Sequence[str], *, reference: bool) -> Prompt:
    """What the judge is asked of two replies to a prompt."""
    asked = prompt.conversation
    turns = "\n\n".join(f"{message.role}: {message.text}" for message in asked.messages)
    parts = {"PROMPT": turns}
    if reference and prompt.expected is not None:
        parts["REFERENCE"] = prompt.expected
    parts |= {f"REPLY {number}": text for number, text in enumerate(texts, start=1)}
    text = "\n\n".join(f"[{head}]\n{part}\n[END OF {head}]" for head, part in parts.items())
    whole = Conversation((Message("user", text),), asked.source, asked.line, index=asked.index)
    return Prompt(frame.apply(whole))


def _preference(
    speaker: Speaker,
    values: dict[tuple[str, str], list[float | None]],
    counts: Counter[str],
    *,
    of: int,
    missing: int,
) -> Preference:
    """With what there is to say of the judge itself."""
    both, chosen = counts["both"], counts["chose 1"] + counts["chose 2"]
    unread = counts["chose None"] - missing
    told = {
        **speaker.told,
        "pairs_judged": both,
        "pairs_of": of,
        "unreadable": unread,
        "agreement": counts["agree"] / both if both else None,
        "first_shown": counts["chose 1"] / chosen if chosen else None,
    }
    said = f"Judge {speaker.name}: {both} of {counted(of, 'pair')} judged in both orders"
    if both:
        said += f"; both agree on {counts['agree'] / both:.0%}"
    if chosen:
        said += (
            f"; of {counted(chosen, 'choice')}, {counts['chose 1']} are of the reply shown first"
        )
    if unread:
        said += f"; {counted(unread, 'answer')} without a verdict"
    worthless = None
    if of and not both and not missing:
        worthless = "The judge is worthless: its answers hold no verdicts."
    elif counts["same place"] and counts["same place"] >= counts["same reply"]:
        worthless = (
            "The judge is worthless: of the same two replies, the other way round, it named the "
            f"same place {counts['same place']} times and the same reply {counts['same reply']} "
            "times. Nobody is called better by it."
        )
    return Preference("judge", values, told, [f"{said}."], worthless)
