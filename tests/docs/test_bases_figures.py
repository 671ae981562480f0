"""What a base in four or eight bits costs is told as `benchmarks/bases.py` measured it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEASURED = (ROOT / "benchmarks" / "results" / "bases.md").read_text(encoding="utf-8").splitlines()
SECTION = re.compile(r"<!-- numbers: from benchmarks/bases\.py.*?-->(.*?)<!-- /numbers -->", re.S)


@pytest.mark.parametrize(("page", "least"), [("quantization", 10), ("gguf", 2)])
def test_every_row_of_a_page_was_measured(page: str, least: int) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    rows = [
        line
        for section in SECTION.findall(text)
        for line in section.splitlines()
        if re.match(r"\|.*\d", line)
    ]
    assert len(rows) >= least
    assert [row for row in rows if row not in MEASURED] == []
