"""The lines of docs/walk.md, run in order as one dialogue."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

WALK = Path(__file__).parents[2] / "docs" / "walk.md"


def test_the_walk_is_as_written() -> None:
    blocks = re.findall(r"```python\n(.*?)```", WALK.read_text(encoding="utf-8"), re.DOTALL)
    dialogue = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, WALK.name, None, 0)
    assert len(dialogue.examples) > 50
    heard: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(dialogue, out=heard.append)
    assert outcome.failed == 0, "".join(heard)
