"""The folder of an evaluation: it appears whole, and never in place of something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.files.building import building
from graftlab.files.locks import hold_beside
from graftlab.files.ownership import LOCK, MARK, mark, refuse_foreign, writing_to
from graftlab.files.writing import write_json

if TYPE_CHECKING:
    from graftlab.evaluation.results import Results

KIND = "comparison"
"""What such a folder is marked as."""
RESULTS, REPLIES, PAGE, BLIND = "results.json", "replies.jsonl", "report.html", "blind.html"
OURS = (RESULTS, REPLIES, PAGE, BLIND, MARK, LOCK)


@contextmanager
def writing_results(
    out: Path | None, *, blind: int | None = None
) -> Iterator[Callable[[Results], list[str]]]:
    """How to write an evaluation into `out`, held meanwhile; it returns a line for each file.

    `blind`: the seed of a page for votes, where one is wanted.

    Raises ConfigError at once where the folder is somebody else's. Without `out`, nothing is
    written.
    """
    if out is None:
        yield lambda found: []
        return
    from graftlab.console import say

    refuse_foreign(out, KIND, key="out")
    with hold_beside(out, tell=say):
        yield lambda found: _write(found, out, blind)


def _write(found: Results, out: Path, blind: int | None) -> list[str]:
    from graftlab.evaluation.blind import blind_page
    from graftlab.evaluation.page import page

    with writing_to(f"out={out}"), building(out, replaces=OURS) as folder:
        mark(folder, KIND)
        with (folder / REPLIES).open("w", encoding="utf-8", errors="backslashreplace") as file:
            for row in found.rows():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        (folder / PAGE).write_text(page(found), encoding="utf-8", newline="\n")
        if blind is not None:
            text = blind_page(found, seed=blind)
            (folder / BLIND).write_text(text, encoding="utf-8", newline="\n")
        write_json(folder / RESULTS, found.as_json())
    return [
        f"{out / RESULTS}: means, intervals and verdicts",
        f"{out / REPLIES}: every reply with its scores",
        f"{out / PAGE}: for a browser",
        *(
            [f"{out / BLIND}: to vote on, best before the others are read"]
            if blind is not None
            else []
        ),
    ]
