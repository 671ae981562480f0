"""`blind=true`: a page on which people choose between two replies without knowing whose they are.

    evaluate ... blind=true out=DIR      DIR/blind.html ──▶ a browser, keys 1, 2 and 0
    evaluate ... votes=votes.json        ◀── the file that the page saves: {"votes": {PAIR: 1, ...}}

The page holds prompts, references and replies alone. Which is whose is known again by hashing what
was shown (`pairs.pairs_of`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.data.files import locate
from graftlab.errors import DataError, counted
from graftlab.evaluation.pairs import Pair, digest, no_preferences, pairs_of
from graftlab.evaluation.preferences import Preference
from graftlab.files.reading import load_json
from graftlab.pages.html import embedded, shell

if TYPE_CHECKING:
    from graftlab.evaluation.results import Results

LARGEST = 64 * 2**20
"""Bytes of a file of votes."""


def blind_page(found: Results, *, seed: int) -> str:
    """The page, its pairs in an order that says nothing either."""
    here = Path(__file__).parent
    pairs = sorted(pairs_of(found, seed=seed), key=lambda pair: digest([seed, pair.digest]))
    body = (here / "blind.html").read_text(encoding="utf-8")
    return shell(
        "Which reply is better?",
        body + embedded("pairs", [_shown(found, pair) for pair in pairs]),
        style=(here / "blind.css").read_text(encoding="utf-8"),
        scripts=[(here / "blind.js").read_text(encoding="utf-8")],
    )


def _shown(found: Results, pair: Pair) -> dict[str, Any]:
    prompt = found.prompts[pair.place]
    return {
        "id": pair.digest,
        "turns": [[message.role, message.text] for message in prompt.conversation.messages],
        "reference": prompt.expected,
        "replies": list(pair.texts),
    }


def read_votes(files: Any, found: Results, *, seed: int) -> Preference:
    """What people chose; of several files, one a person, the balance of each pair counts.

    Raises ConfigError for a missing file, DataError for one that holds anything but votes on these
    replies.
    """
    pairs = {pair.digest: pair for pair in pairs_of(found, seed=seed)}
    problems: list[str] = []
    total: dict[str, float] = dict.fromkeys(pairs, 0.0)
    given: dict[str, int] = dict.fromkeys(pairs, 0)
    shown_first = decided = 0
    paths = locate("votes", files)
    for path in paths:
        votes = _read(path, problems)
        strange = votes.keys() - pairs.keys()
        if strange:
            problems.append(
                f"{path}: {len(strange)} of {len(votes)} votes are on other replies than these: "
                "give the command that wrote the page, and votes=FILE."
            )
        for key in votes.keys() & pairs.keys():
            total[key] += pairs[key].value(votes[key])
            given[key] += 1
            decided += votes[key] != 0
            shown_first += votes[key] == 1
    if problems:
        raise DataError("\n".join(problems))
    values = no_preferences(found)
    for key, pair in pairs.items():
        if given[key]:
            values[pair.models][pair.place] = float((total[key] > 0) - (total[key] < 0))
    told = {"files": list(map(str, paths)), "votes": sum(given.values())}
    told |= {"of": len(pairs), "first_shown": shown_first / decided if decided else None}
    said = f"Votes: {sum(map(bool, given.values()))} of {counted(len(pairs), 'pair')}"
    if decided:
        said += f"; of {decided} that chose one, {shown_first} chose the one that is shown first"
    return Preference("votes", values, told, [f"{said}."])


def _read(path: Path, problems: list[str]) -> dict[str, int]:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
        votes = load_json(path.read_bytes())["votes"]
        if not votes:
            raise ValueError("it holds no votes")
        if not all(type(vote) is int and 0 <= vote <= 2 for vote in votes.values()):
            raise ValueError("a vote is 1, 2 or 0")
        return dict(votes)
    except OSError as error:
        problems.append(f"votes={path} cannot be read: {error.strerror}.")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        problems.append(f"votes={path} is no file that a page of blind=true saved.")
    except ValueError as error:
        problems.append(f"votes={path} is no file that a page of blind=true saved: {error}.")
    return {}
