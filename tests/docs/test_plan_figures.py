"""Every figure of `plan` that docs/plan.md gives is what the tool says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")


def guides():
    """`benchmarks/plan_guides.py`, which prints the page's tables."""
    place = ROOT / "benchmarks" / "plan_guides.py"
    spec = importlib.util.spec_from_file_location("plan_guides", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("table", ["ficino", "hafs", "theologian", "qwen"])
def test_the_page_holds_the_rows_that_the_tool_prints(table):
    rows = getattr(guides(), table)()
    assert len(rows) >= 4
    assert "\n".join(rows) in PAGE


def test_no_other_table_beside_the_guides():
    """A table that no script prints would rot."""
    section = PAGE.partition("## Beside the guides")[2]
    rows = [line for line in section.splitlines() if re.match(r"\|[^-]", line)]
    module = guides()
    tables = (module.ficino, module.hafs, module.theologian, module.qwen)
    printed = [row for table in tables for row in table()]
    headings = len(tables)
    assert len(rows) == len(printed) + headings
