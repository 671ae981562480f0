"""The report as a whole: what is planted is found, and every text is escaped."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftlab.recipes import report
from graftlab.recipes.mix import Mix
from graftlab.recipes.prepare import prepare
from graftlab.recipes.report import survey, write_report
from graftlab.recipes.report.page import SECTIONS
from graftlab.recipes.report.row_sampling import lines
from graftlab.recipes.report.signs import SIGNS, signs_in
from graftlab.recipes.report.survey import Survey
from graftlab.recipes.report.turns import CLIP
from graftlab.recipes.sources import SourceSpec
from graftlab.recipes.spec import PrepareSpec
from graftlab.recipes.split import Split
from recipe_rows import sentence, turns, write_lines

EMPTY = {"area", "base", "br", "col", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """What a browser would see: tags in balance, texts, anchors, and what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in EMPTY:
            self._open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "data")
            if name == "href":
                self.links.append(str(value))
            if name == "id":
                self.ids.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


PLANTED = {
    "replacement characters": "it was lost \ufffd here",
    "mojibake": "the caf\u00c3\u00a9 is closed",
    "control characters": "a bell \x07 rings",
    "lone surrogates": "half \ud83d of it",
    "zero-width characters": "zero\u200bwidth",
    "very long words": "key " + "xY3" * 30,
    "mostly digits and symbols": "12 34 56 78 90 :: 11 22 33 44 ** 55 66 77 __ 88 99",
    "HTML left over": "one<br>two",
    "web addresses": "read https://example.org/page?x=1 first",
    "e-mail addresses": "ask jane.doe@example.org about it",
}


def made(folder: Path, rows: list[Any], *, rejects: list[Any] | None = None, seed: int = 0) -> Path:
    """A prepared folder with these training rows, without a walk."""
    folder.mkdir(exist_ok=True)
    write_escaped(folder / "train.jsonl", rows)
    write_escaped(folder / "rejects.jsonl", rejects or [])
    sources = dict(Counter(row["source"] for row in rows))
    manifest = {
        "graftlab": "0",
        "seed": seed,
        "inputs": [],
        "sources": {name: {} for name in sources},
        "steps": [],
        "result": {"train": {"rows": len(rows), "bytes": 0, "sources": sources}},
        "rejects": {"rows": len(rejects or []), "parts": 0},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def write_escaped(path: Path, rows: list[Any]) -> None:
    """As prepare writes: UTF-8, lone surrogates as escapes."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def row(answer: str, *, question: str = "Why?", source: str = "core") -> dict[str, Any]:
    return {"messages": turns(question, answer), "source": source}


def reject(answer: str, reason: str, *, detail: str = "", origin: str = "a:1") -> dict[str, Any]:
    record = {"messages": turns("Why?", answer)}
    rest = {"source": "core", "kind": "chat", "record": record}
    return {"step": "dedupe", "reason": reason, "detail": detail, "origin": origin, **rest}


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def surveyed(folder: Path, *, seed: int = 0) -> Survey:
    return Survey.of(folder, ["train"], seed=seed)


def test_the_whole_walk_ends_in_a_report(tmp_path: Path) -> None:
    rows = [{"messages": turns(sentence(n), sentence(n + 9999))} for n in range(60)]
    twin = {"messages": turns(sentence(5), sentence(10_004) + " again")}
    file = write_lines(tmp_path / "rows.jsonl", [*rows, twin, rows[0], {"bad": "<i>"}])
    out = prepare(
        PrepareSpec(
            sources={"core": SourceSpec(files=file), "more": SourceSpec(make="negative")},
            out=str(tmp_path / "out"),
            split=Split(valid=0.2),
            mix=Mix(weights={"core": 1, "more": 1}),
        )
    ).folder
    page = Page((out / report.REPORT).read_text(encoding="utf-8"))
    assert page.ids == list(SECTIONS)
    assert {link for link in page.links if link.startswith("#")} == set(page.links)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    for told in ("rows in train.jsonl", "core: read", "more: make", "exact duplicate", "mix"):
        assert told in page.text
    assert "near duplicate" in page.text
    assert f"{file}:61" in page.text
    assert '{"row": {"bad": "<i>"}}' in page.text
    assert not page.tags["script"]


@pytest.mark.parametrize("name", PLANTED)
def test_signs_are_found_where_they_are(tmp_path: Path, name: str) -> None:
    said = PLANTED[name]
    assert [sign.name for sign, _ in signs_in(said)] == [name]
    rows = [row("A plain answer, quite long enough.") for _ in range(7)]
    folder = made(tmp_path / "made", [*rows, row(said, question="")])
    found = surveyed(folder).signs
    assert found.keys() == {name}
    assert found[name].sources == {"core": 1}
    (example,) = found[name].examples.drawn()
    assert example.place == "train.jsonl:8"
    assert example.found.strip() in said
    page = read(folder)
    assert f"{name}, 1 rows" in page.text
    assert "train.jsonl:8" in page.text


def test_every_sign_is_planted() -> None:
    assert [sign.name for sign in SIGNS] == list(PLANTED)


def test_lengths_are_exact(tmp_path: Path) -> None:
    rows = [row("word " * n, question="é ü") for n in range(1, 101)]
    rows.append({"text": "one two three", "source": "book"})
    lengths = surveyed(made(tmp_path / "made", rows)).lengths
    answers, questions = lengths["core"]["assistant"], lengths["core"]["user"]
    assert (answers.rows, answers.total, answers.tokens) == (100, 5050, 6313)
    assert [answers.quantile(q) for q in (0.0, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]
    assert (questions.rows, questions.tokens) == (100, 125)
    assert lengths["book"]["text"].total == 3


def test_rows_that_the_mix_repeats_often_stand_out(tmp_path: Path) -> None:
    folder = made(tmp_path / "set", [row("Because.")])
    manifest = json.loads((folder / "manifest.json").read_text())
    sources = {"core": {"in": 9, "out": 9}, "guard": {"in": 2, "out": 8}}
    mix = {"step": "mix", "in": 11, "kept": 11, "dropped": {}, "out": 17, "sources": sources}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "steps": [mix]}))
    said = read(folder).text
    assert "2 rows of guard are repeated 4 times each in train.jsonl" in said
    assert "rows of core are repeated" not in said


def test_rows_that_the_mix_repeats_are_shown_once(tmp_path: Path) -> None:
    rows = [row(sentence(n % 4)) for n in range(40)]
    shown = surveyed(made(tmp_path / "made", rows)).shown["core"].drawn()
    assert [one.place for one in shown] == [f"train.jsonl:{n}" for n in range(1, 5)]


TEXT = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    ["<script>alert(1)</script>", "</style>", "--><b", "]]>", "&lt;", '" onload="x', "\0", "\ud800"]
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6), st.integers(0, 2**40))
def test_any_text_is_escaped_and_the_same_bytes_come_out(
    tmp_path: Path, said: list[tuple[str, str, str]], seed: int
) -> None:
    rows = [row(answer, question=asked, source=source) for asked, answer, source in said]
    rejects = [reject(a, s or "reason", detail=q, origin=s) for q, a, s in said]
    folder = made(tmp_path / "made", rows, rejects=rejects, seed=seed)
    page = read(folder)
    first = (folder / report.REPORT).read_bytes()
    assert not page.tags["script"]
    assert page.tags["style"] == 1
    assert page.ids == list(SECTIONS)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", first.decode("utf-8"))
    assert write_report(folder).read_bytes() == first


def test_the_seed_draws_other_rows(tmp_path: Path) -> None:
    folder = made(tmp_path / "made", [row(sentence(n)) for n in range(200)])
    drawn = [[one.place for one in surveyed(folder, seed=n).shown["core"].drawn()] for n in (1, 2)]
    assert len(drawn[0]) == len(drawn[1]) == survey.SHOWN
    assert drawn[0] != drawn[1]


def test_a_sample_of_a_large_set_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "SAMPLE", 20)
    monkeypatch.setattr("graftlab.recipes.report.findings.SAMPLE", 20)
    folder = made(tmp_path / "made", [row(sentence(n)) for n in range(90)])
    assert surveyed(folder).phrases.rows == 20
    assert "a sample of 20 different rows of 90, drawn by hash" in read(folder).text


def test_memory_and_size_do_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SAMPLE", 100)

    def rows(count: int) -> Iterator[dict[str, Any]]:
        return (row(f"{sentence(n, words=40)} {'x' * 3000}") for n in range(count))

    peaks, sizes = [], []
    for count in (400, 2400):
        made_here = list(rows(count))
        rejected = [reject(one["messages"][1]["content"], "too long") for one in made_here]
        folder = made(tmp_path / str(count), made_here, rejects=rejected)
        del made_here, rejected
        tracemalloc.start()
        write_report(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append((folder / report.REPORT).stat().st_size)
    assert peaks[1] < 1.3 * peaks[0] + 300_000
    assert sizes[1] < 1.2 * sizes[0]
    assert sizes[1] < 100 * CLIP


def test_lines_know_their_place_and_lot(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_escaped(path, [row("é"), row("b"), row("é")])
    found = list(lines(path, seed=3))
    assert [line.place for line in found] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]
    assert found[0].lot == found[2].lot != found[1].lot
