"""Where sentences end, by rule."""

from __future__ import annotations

import re

_END = re.compile(r"""[.!?][)'"\]]*(?=\s+['"(\[]*[A-Z\d—])""")
_ABBREVIATED = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Rev|Prof|Capt|Col|Gen|Lt|Sr|Jr|vol|no|cf|viz|vs)|\b[A-Z]|[ap]\.m"
    r"|\bi\.e|\be\.g|(?:^|\s)\d{1,2})\.$"
)
_LONGEST = 4
"""Characters that an abbreviation has in front of its dot."""


def sentences_of(paragraph: str) -> list[str]:
    """The sentences of one paragraph, in order, without the space between them."""
    found, start = [], 0
    for match in _END.finditer(paragraph):
        nearby = max(start, match.start() - _LONGEST)
        if match.group()[0] == "." and _ABBREVIATED.search(paragraph, nearby, match.start() + 1):
            continue
        found.append(paragraph[start : match.end()].strip())
        start = match.end()
    found.append(paragraph[start:].strip())
    return [sentence for sentence in found if sentence]
