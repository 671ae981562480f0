"""The page: everything escaped, the largest differences first, and it works in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from browser import Browser, chromium
from evaluation_results import HOSTILE, made_results
from graftlab.evaluation.metrics.base import Measure
from graftlab.evaluation.page import page
from graftlab.evaluation.page.cases import ALL, marked, ordered, orders
from graftlab.evaluation.verdicts import Estimate
from graftlab.evaluation.wording import bounds


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = [("", {})]
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags[-1][0] not in ("script", "style"):
            self.said.append(data)


def test_nothing_of_the_data_is_markup() -> None:
    read = Tags(page(made_results()))
    names = [tag for tag, _ in read.tags]
    assert "img" not in names
    assert names.count("script") == 2
    assert names.count("article") == 12
    for _, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"src", "srcset"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
    said = " ".join(" ".join(read.said).split())
    assert said.count(f"Question 3 {HOSTILE}") == 1
    assert "run<1>" in said
    assert f"prompts{HOSTILE}.jsonl: 12 prompts, greedy, at most 8 tokens." in said


def test_verdicts_and_means_are_told() -> None:
    said = " ".join(" ".join(Tags(page(made_results())).said).split())
    assert "exact-match pct_exact ↑ +50 %" in said
    assert re.search(r"not told apart: about \d+ more prompts? would settle it", said)
    many = " ".join(" ".join(Tags(page(made_results(40))).said).split())
    assert re.search(
        r"run<1> base exact-match pct_exact ↑ \+50 % \[\+\d+ %, \+\d+ %\] \S+ better", many
    )
    assert re.search(r"style avg_banned_hits ↓ -0.50 .{,40} better", many), "fewer are better"
    alone = " ".join(" ".join(Tags(page(made_results(models=("base",)))).said).split())
    assert "One model: nobody to compare with." in alone
    assert "one without 0 may be no verdict." in said
    assert "one without 0 may be no verdict." not in alone


def test_where_nothing_is_bounded_there_is_no_interval() -> None:
    words = Measure(about="words")
    assert bounds(Estimate(1.25, float("-inf"), float("inf"), 8), words) == "–"
    assert bounds(Estimate(1.25, 1, 2, 8), words) == "[1.00, 2.00]"


def test_the_largest_differences_come_first() -> None:
    found = made_results()
    assert ordered(found) == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]
    by = dict(orders(found))
    assert set(by) == {ALL, "run<1>: exact-match pct_exact ↑", "run<1>: style avg_banned_hits ↓"}
    assert by["run<1>: style avg_banned_hits ↓"][:2] == [1, 0]
    places = re.findall(r'data-place="(\d+)"', page(found))
    assert list(map(int, places)) == ordered(found)


def test_words_of_ones_own_are_marked() -> None:
    assert marked("Mind the new doors.", "Mind the doors.") == "Mind the <mark>new </mark>doors."
    assert marked("<b> and so on", "<i> and so on") == "<mark>&lt;b&gt; </mark>and so on"
    assert "<mark>" not in marked("Entirely something else", "Words without anything shared")


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(made_results()), encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(file)
        shown = (
            "[...document.querySelectorAll('.case')].filter(c => !c.hidden)"
            ".map(c => +c.dataset.place)"
        )
        assert browser.run(shown) == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]
        change = (
            "(s => {{ s.value = {0!r}; s.dispatchEvent(new Event('change')) }})"
            "(document.getElementById({1!r}))"
        )
        browser.run(change.format("worst first", "order"))
        assert browser.run(shown)[:3] == [1, 3, 5]
        browser.run(change.format("as asked", "order"))
        assert browser.run(shown) == list(range(12))
        browser.run(
            "(s => { s.value = '<7>.JSONL question'; s.dispatchEvent(new Event('input')) })"
            "(document.getElementById('search'))"
        )
        assert browser.run(shown) == [7]
        assert browser.run("document.getElementById('shown').textContent") == "1 of 12 prompts"
        assert not browser.errors
        assert [url for url in browser.requests if not url.startswith("file:")] == []
    finally:
        browser.close()
