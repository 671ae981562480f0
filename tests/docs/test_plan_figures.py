"""Every figure of `plan` that docs/plan.md gives is what the tool says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")


TABLES = ("ficino", "hafs", "theologian", "qwen")


def guides():
    """`benchmarks/plan_guides.py`, which prints the page's tables."""
    place = ROOT / "benchmarks" / "plan_guides.py"
    spec = importlib.util.spec_from_file_location("plan_guides", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_rows_that_the_tool_prints():
    """And no other table beside the guides: one that no script prints would rot."""
    section = PAGE.partition("## Beside the guides")[2]
    module, printed = guides(), 0
    for table in TABLES:
        rows = getattr(module, table)()
        assert len(rows) >= 4, table
        assert "\n".join(rows) in PAGE, table
        printed += len(rows)
    rows = [line for line in section.splitlines() if re.match(r"\|[^-]", line)]
    headings = len(TABLES)
    assert len(rows) == printed + headings
