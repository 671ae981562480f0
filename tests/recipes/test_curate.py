"""Curate keeps prose whole, strips every kind of debris with its line, and loses no word."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.recipes import curate, marks
from graftlab.recipes.characters import plain_characters
from graftlab.recipes.curate import Curate, count_tokens, read_book
from graftlab.recipes.lines import WordCounts
from recipe_drops import MESSY, run_step, text_record

SENTENCE = "The tide came up to the third step of the stair and went down again before noon. "
PROSE = (SENTENCE * 5).strip()


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def kept(text: str, **settings: object) -> str:
    """The chunks of `text`, told apart by a line."""
    out, _ = run_step(
        Curate(**{"min_para_words": 0, "min_length": 1, **settings}), [text_record(text)]
    )
    return "\n====\n".join(str(record.body["text"]) for record in out)


def test_the_messy_book_is_stripped_to_its_prose() -> None:
    out, drops = run_step(Curate(), [text_record(MESSY.read_text(encoding="utf-8"))])
    assert [record.labels for record in out] == [
        {"chunk": "1", "line": "51"},
        {"chunk": "2", "line": "101"},
    ]
    first, second = (str(record.body["text"]) for record in out)
    assert first.count("\n\n") == second.count("\n\n") == 1
    assert "he filed the beam" in first
    assert "a little more each winter" in first
    assert "before he had turned the third of them, what was being weighed. He closed" in first
    assert "in the third week" in first
    assert "ruled in his own hand—he knew" in first
    assert "weighing-house, which stood open" in second
    assert "burned within it" in second
    assert "read aloud.\n\nThe clerk" in second
    for debris in "[]{}_*†¹ﬁ­":
        assert debris not in first + second
    assert set(drops.reasons) == {
        marks.LICENCE, marks.FRONT, marks.BACK, marks.CONTENTS, marks.HEADING, marks.PAGE,
        marks.FOOTNOTE, marks.MARKER, marks.NOTE, marks.ORNAMENT, marks.EPIGRAPH, marks.VERSE,
        curate.SHORT,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "line", "begins"),
    [
        (marks.LICENCE, 143, "Updated editions"),
        (marks.LICENCE, 14, "Copyright 1911"),
        (marks.CONTENTS, 21, "Preface ...."),
        (marks.FRONT, 33, "When my publisher"),
        (marks.FRONT, 40, "THE AUTHOR."),
        (marks.HEADING, 44, "CHAPTER I"),
        (marks.EPIGRAPH, 48, '"What is weighed'),
        (marks.FOOTNOTE, 60, "  [1] The chain"),
        (marks.MARKER, 56, "[1]"),
        (marks.PAGE, 73, "4"),
        (marks.PAGE, 85, "THE SALT LEDGER"),
        (marks.NOTE, 77, "[Illustration:"),
        (marks.NOTE, 94, "[Transcriber's Note"),
        (marks.PAGE, 102, "{9}"),
        (marks.VERSE, 87, "        Salt in"),
        (marks.ORNAMENT, 126, "THE END"),
        (marks.BACK, 130, "A table of the weights"),
        (curate.SHORT, 63, '"Nothing weighs'),
    ],
)
def test_each_piece_is_named_with_its_line(reason: str, line: int, begins: str) -> None:
    _, drops = run_step(Curate(), [text_record(MESSY.read_text(encoding="utf-8"))])
    found = [
        (record, detail)
        for record, why, detail in drops.rows
        if why == reason and record.labels["piece"] == str(line)
    ]
    assert len(found) == 1
    record, detail = found[0]
    assert str(record.body["text"]).startswith(begins)
    assert f"line {line}" in detail
    assert record.origin == "book.txt:1"


def test_no_word_of_the_messy_book_is_lost() -> None:
    text = MESSY.read_text(encoding="utf-8")
    out, drops = run_step(Curate(), [text_record(text)])
    told = [str(record.body["text"]) for record in [*out, *(row[0] for row in drops.rows)]]
    mended = plain_characters(text).replace("_", "")
    mended = mended.replace("lit-\ntle", "little").replace("with-\nin", "within")
    mended = mended.replace("of¹", "of ¹")
    assert words(" ".join(told).replace("_", "")) == words(mended)


def test_line_ends_of_windows_change_nothing() -> None:
    text = MESSY.read_text(encoding="utf-8")
    assert read_book(text.replace("\n", "\r\n")) == read_book(text) == read_book("\ufeff" + text)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("eﬃcient ﬂow oﬀ", "efficient flow off"),
        ("cafe\u0301", "café"),
        ("a\u00a0b\u2009c\td", "a b c d"),
        ("re\u00admem\u200bber", "remember"),
        ("“Yes,” he said—‘no’…", "\"Yes,\" he said—'no'..."),
        ("one -- two--three", "one—two—three"),
        ("``quoted''", '"quoted"'),
        ("Mr. B---- went", "Mr. B— went"),
        ("ſhip of war", "ship of war"),
        ("nul\x00 and bell\x07", "nul and bell"),
        ("1914-18, well-known", "1914-18, well-known"),
        ("-----", "-----"),
    ],
)
def test_characters(written: str, read: str) -> None:
    assert plain_characters(written) == read


@pytest.mark.parametrize(
    ("head", "tail", "text", "joined"),
    [
        ("be", "neath", "it lay beneath", "beneath"),
        ("be", "neath", "", "beneath"),
        ("stone", "crowned", "stone-crowned hills", "stone-crowned"),
        ("half", "hidden", "half of it was hidden", "half-hidden"),
        ("with", "in", "with him in there", "within"),
        ("to", "day", "to-day and to-day and today", "to-day"),
    ],
)
def test_hyphens_at_line_ends(head: str, tail: str, text: str, joined: str) -> None:
    assert WordCounts(f"{text} {head}-\n{tail}").join(head, tail) == joined


def test_soft_hyphen_at_a_line_end_joins() -> None:
    assert kept("It lay under\u00ad\nneath the stair.") == "It lay underneath the stair."


def test_paragraphs_told_apart_by_indents_and_by_long_lines() -> None:
    wrapped = "The tide came up to the third step of the stair,\nand went down before noon.\n"
    indented = f"  {wrapped}  {wrapped}  {wrapped}".replace("\nand", "\nand")
    assert kept(indented).count("\n\n") == 2
    long = "\n".join([PROSE, PROSE, PROSE])
    assert kept(long) == "\n\n".join([PROSE] * 3)


def test_a_page_that_ends_in_a_paragraph_is_healed_and_a_finished_one_is_not() -> None:
    broken = f"{PROSE[:-1]} and then\n\n- 7 -\n\nthe water stood still. {PROSE}"
    assert f"and then the water stood still. {PROSE}" in kept(broken)
    whole = f"{PROSE}\n\n- 7 -\n\nThe water stood still."
    assert kept(whole) == f"{PROSE}\n\nThe water stood still."
    torn = f"{PROSE} The wa-\n\n\f\nter stood still."
    assert "The water stood still." in kept(torn)


def test_prose_that_only_looks_like_debris_stays() -> None:
    innocent = [
        f"{PROSE} The text, printed in Springfield and published by nobody, is lost. {PROSE}",
        "I. was all that he had signed with; " + PROSE,
        f"[He stopped.] {PROSE}",
        f"{PROSE} It cost 3 * 4 pence, or 12.",
        f"In the preface to his book he said so. {PROSE}",
        f"{PROSE} Chapter twelve of it was burned.",
    ]
    assert kept("\n\n".join(innocent), max_length=2000) == "\n\n".join(innocent)


def test_chunks_stay_within_their_range_and_within_a_section() -> None:
    book = "\n\n".join(f"CHAPTER {n}\n\n" + "\n\n".join([PROSE] * n) for n in range(1, 9))
    limits = Curate(min_length=100, max_length=300)
    out, drops = run_step(limits, [text_record(book)])
    lengths = [len(str(record.body["text"]).split()) for record in out]
    assert all(100 <= length <= 300 for length in lengths)
    assert drops.reasons == {marks.HEADING: 8, curate.SCANT: 1}  # the chapter of one paragraph
    assert sum(lengths) == len(PROSE.split()) * (2 + 3 + 4 + 5 + 6 + 7 + 8)
    assert max(lengths) - min(lengths) <= len(PROSE.split())


def test_a_paragraph_longer_than_a_chunk_is_dropped_with_its_length() -> None:
    out, drops = run_step(Curate(max_length=100), [text_record(f"{PROSE}\n\n{PROSE} {PROSE}")])
    assert len(out) == 1
    assert [detail for _, _, detail in drops.rows] == ["line 3: 170 words"]
    assert drops.reasons == {curate.LONG: 1}


def test_tokens_as_the_unit_and_as_the_target() -> None:
    book = "\n\n".join([PROSE] * 20)
    out, drops = run_step(
        Curate(unit="tokens", max_length=300, target_tokens=1000),
        [text_record(book), text_record(book, line=2)],
    )
    sizes = [count_tokens(str(record.body["text"])) for record in out]
    assert max(sizes) <= 300
    assert 1000 - 300 < sum(sizes) <= 1000
    assert drops.reasons[curate.ENOUGH] > 1
    assert [record.labels["chunk"] for record in out] == [str(n) for n in range(1, len(out) + 1)]


def test_what_holds_no_prose_is_dropped_whole() -> None:
    for text in ("", "\n\n", "CHAPTER I", "A short one.", "* * *"):
        out, drops = run_step(Curate(), [text_record(text)])
        assert out == []
        assert drops.reasons[curate.NOTHING] == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"unit": "letters"}, "curate.unit"),
        ({"min_length": 500}, "curate.max_length=450 is below"),
        ({"target_tokens": 0}, "curate.target_tokens"),
        ({"min_para_words": -1}, "curate.min_para_words"),
    ],
)
def test_wrong_values_are_refused_by_key(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Curate(**wrong)  # type: ignore[arg-type]


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["", "", "CHAPTER II", "CONTENTS", "PREFACE", "12", "* * *", "[1] See there.", PROSE,
             "THE END", "APPENDIX", "— A. Name", "\f", "[Illustration:", "word-", "_so_ {3} on",
             "*** START OF THE PROJECT GUTENBERG EBOOK X ***", "End of Project Gutenberg's X"]
        ),
        st.text(max_size=60),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, max_size=4))
def test_in_is_kept_plus_dropped_for_any_text(books: list[list[str]]) -> None:
    records = [text_record("\n".join(lines), line=n) for n, lines in enumerate(books, 1)]
    out, _ = run_step(Curate(min_para_words=5, min_length=5, max_length=90), records)
    assert all(str(record.body["text"]).strip() for record in out)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab \n-.\f[]1{}I*", max_size=300))
def test_letters_are_never_lost(text: str) -> None:
    out, drops = run_step(
        Curate(min_para_words=2, min_length=2, max_length=30), [text_record(text)]
    )
    told = [str(record.body["text"]) for record in out]
    told += [str(r.body["text"]) for r, why, _ in drops.rows if why != curate.NOTHING]
    letters = Counter(c for c in "".join(told) if c.isalnum())
    assert letters == Counter(c for c in text if c.isalnum())
