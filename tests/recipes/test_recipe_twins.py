"""dedupe, split and decontaminate: who is alike, which side a record is on, what is left out."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError, DataError
from graftlab.recipes.decontaminate import Decontaminate
from graftlab.recipes.dedupe import Dedupe, first_of_same
from graftlab.recipes.record import Record
from graftlab.recipes.similar import NGRAM, bands_for
from graftlab.recipes.split import SIDE, Split
from graftlab.recipes.words import family, jaccard, ngrams, shingles, words_of
from recipe_rows import Drops, chat, many, sentence, write_lines


def varied(record: Record, number: int, *, origin: str) -> Record:
    """Nearly the same record: one word of its answer is another."""
    question, answer = (m["content"] for m in record.body["messages"])
    words = answer.split()
    words[number % len(words)] = f"other{number}"
    return chat(question, " ".join(words), origin=origin, source=record.source)


def likeness(first: Record, second: Record) -> float:
    return jaccard(frozenset(shingles(first, NGRAM)), frozenset(shingles(second, NGRAM)))


def side_of(record: Record) -> str:
    return record.labels[SIDE]


def test_words_of_any_script() -> None:
    assert words_of("Don't STOP, été!") == ["don", "t", "stop", "été"]
    assert words_of("日本語 text") == ["日", "本", "語", "text"]
    assert ngrams(["a", "b", "c"], 2) == ["a b", "b c"]
    assert ngrams(["a"], 3) == ["a"]
    assert shingles(chat("!!!", "???"), 3) == ["!!!\n???"]


def test_exact_duplicates_keep_the_first() -> None:
    records = [chat("a", "b", origin=f"f:{n}") for n in range(3)]
    records.insert(1, chat("a", "c", origin="f:9"))
    drops = Drops()
    kept = list(Dedupe(near=None).apply(iter(records), drops))
    assert [r.origin for r in kept] == ["f:0", "f:9"]
    assert [(r.origin, why, what) for r, why, what in drops] == [
        ("f:1", "exact duplicate", "same as f:0"),
        ("f:2", "exact duplicate", "same as f:0"),
    ]
    assert len(list(Dedupe(exact=False, near=None).apply(iter(records), drops))) == 4


@given(st.lists(st.integers(0, 5), max_size=40))
def test_the_first_of_the_same(values: list[int]) -> None:
    digests = b"".join(value.to_bytes(16, "little") for value in values)
    assert first_of_same(digests).tolist() == [values.index(value) for value in values]


def test_near_duplicates_are_found_and_others_are_not() -> None:
    """Three thousand strangers, a twin for every tenth; nothing kept is a twin of a kept one."""
    strangers = many(3000)
    twins = [varied(r, n, origin=f"twin:{n}") for n, r in enumerate(strangers[::10])]
    assert all(likeness(a, b) > 0.8 for a, b in zip(strangers[::10], twins, strict=True))
    records = strangers + twins
    random.Random(0).shuffle(records)
    drops = Drops()
    kept = list(Dedupe(near=0.8).apply(iter(records), drops))
    assert len(kept) + len(drops) == len(records)
    assert set(drops.reasons) == {"near duplicate"}
    assert 294 <= len(drops) <= 300  # 98 % are found
    for record, _, detail in drops[:20]:
        similarity, origin = detail.split(" like ")
        other = next(r for r in kept if r.origin == origin)
        assert round(likeness(record, other), 2) == float(similarity) >= 0.8


def test_a_chain_does_not_swallow_what_is_only_like_a_dropped_one() -> None:
    first = chat(sentence(1), sentence(2, words=40), origin="f:1")
    chain = [first]
    for number in range(1, 9):
        chain.append(varied(chain[-1], 4 * number, origin=f"f:{number + 1}"))
    assert likeness(chain[0], chain[1]) > 0.8 > likeness(chain[0], chain[-1])
    kept = list(Dedupe(near=0.8).apply(iter(chain), Drops()))
    assert 1 < len(kept) < len(chain)
    assert all(likeness(a, b) < 0.8 for a in kept for b in kept if a is not b)


def test_variants_of_one_row_are_kept() -> None:
    first = chat(sentence(1), sentence(2), origin="f:1")
    variant = replace(varied(first, 3, origin="f:1"), source="markdown")
    stranger = varied(first, 3, origin="f:2")
    assert len(list(Dedupe().apply(iter([first, variant]), Drops()))) == 2
    assert len(list(Dedupe().apply(iter([first, stranger]), Drops()))) == 1
    chunks = [replace(r, labels={"chunk": str(n)}) for n, r in enumerate([first, variant])]
    assert len(list(Dedupe().apply(iter(chunks), Drops()))) == 1


@pytest.mark.parametrize("near", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_what_they_promise(near: float) -> None:
    bands, rows = bands_for(near)
    assert bands * rows <= 128
    assert 1 - (1 - near**rows) ** bands >= 0.98


def test_no_twin_is_on_two_sides() -> None:
    records = many(600)
    twins = [varied(r, n, origin=f"twin:{n}") for n, r in enumerate(records[:200])]
    copies = [replace(r, origin=f"copy:{n}") for n, r in enumerate(records[200:300])]
    variants = [replace(r, body={"text": f"v {n}"}) for n, r in enumerate(records[300:400])]
    everything = records + twins + copies + variants
    random.Random(1).shuffle(everything)
    dealt = list(Split(valid=0.2, test=0.1).apply(iter(everything), Drops()))
    assert [replace(r, labels={}) for r in dealt] == everything
    side = {}
    for record in dealt:
        side.setdefault(record.origin, side_of(record))
        assert side_of(record) == side[record.origin]  # variants of one row
    assert all(side[f"core:{n + 1}"] == side[f"copy:{n - 200}"] for n in range(200, 300))
    split_twins = sum(side[f"core:{n + 1}"] != side[f"twin:{n}"] for n in range(200))
    assert split_twins <= 4
    sizes = Counter(map(side_of, dealt))
    assert sizes["valid"] == 200
    assert sizes["test"] == 100


def test_every_source_gives_its_share() -> None:
    records = [*many(300), *many(50, source="guard"), *many(2, source="tiny")]
    records[300:350] = [replace(r, body={"text": f"g {r.origin}"}) for r in records[300:350]]
    records[350:] = [replace(r, body={"text": f"t {r.origin}"}) for r in records[350:]]
    dealt = Split(valid=0.1).apply(iter(records), Drops())
    held = Counter(r.source for r in dealt if side_of(r) == "valid")
    assert held == {"core": 30, "guard": 5}


def test_the_split_depends_on_content_alone() -> None:
    records = many(400)
    split = Split(valid=0.1)

    def held(rows: list[Record]) -> set[str]:
        return {r.origin for r in split.apply(iter(rows), Drops()) if side_of(r) == "valid"}

    first = held(records)
    assert held(records[::-1]) == first
    more = held(records + many(440)[400:])
    assert len(more) == 44
    assert len(first - more) <= 4  # at the edge of the share


def test_a_cluster_that_is_most_of_the_data_trains() -> None:
    first = chat(sentence(1), sentence(2, words=60), origin="f:0")
    alike = [varied(first, n, origin=f"f:{n}") for n in range(50)]
    dealt = list(Split(valid=0.2).apply(iter([*alike, *many(20)]), Drops()))
    assert {side_of(r) for r in dealt[:50]} == {"train"}
    assert sum(side_of(r) == "valid" for r in dealt) == 14
    pair = [side_of(r) for r in Split().apply(iter(many(2)), Drops())]
    assert sorted(pair) == ["train", "valid"]
    assert [side_of(r) for r in Split().apply(iter(many(1)), Drops())] == ["train"]


def test_evaluation_texts_are_taken_out(tmp_path: Path) -> None:
    asked = sentence(5, words=20)
    file = write_lines(tmp_path / "eval.jsonl", [{"question": asked}, {"q": "Name the sea."}])
    inside = chat("Say: " + " ".join(asked.split()[4:18]).upper() + "!", "Yes.", origin="f:1")
    short = chat("Name the sea!", "It is the Baltic.", origin="f:2")
    fine = [chat(" ".join(asked.split()[:12]), "No.", origin="f:3"), *many(3)]
    drops = Drops()
    step = Decontaminate(against=file)
    assert list(step.apply(iter([inside, short, *fine]), drops)) == fine
    assert drops.reasons == ["overlaps an evaluation file"] * 2
    assert drops[0][2].startswith(f"{file}:1: ")
    assert drops[1][2] == f"{file}:2: name the sea"
    assert list(Decontaminate().apply(iter(fine), drops)) == fine
    with pytest.raises(ConfigError, match=r"decontaminate\.against=.*does not exist"):
        Decontaminate(against=str(tmp_path / "none.jsonl")).paths()
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"a": ')
    with pytest.raises(DataError, match=r"decontaminate\.against cannot be read") as caught:
        list(Decontaminate(against=str(tmp_path / "bad.jsonl")).apply(iter(fine), drops))
    assert f"{tmp_path / 'bad.jsonl'}:2: " in caught.value.problems[0]


def test_specs_of_steps_check_themselves() -> None:
    with pytest.raises(ConfigError, match=r"dedupe\.near=1\.5"):
        Dedupe(near=1.5)
    with pytest.raises(ConfigError, match="less than a tenth"):
        Split(valid=0.5, test=0.5)
    with pytest.raises(ConfigError, match=r"decontaminate\.ngram"):
        Decontaminate(ngram=1)


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=5).map(" ".join)
RECORDS = st.lists(st.tuples(WORDS, WORDS, st.integers(0, 3)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_no_record_is_lost(rows: list[tuple[str, str, int]]) -> None:
    records = [chat(q, a, origin=f"f:{n}") for n, (q, a, _) in enumerate(rows)]
    for step in (Dedupe(near=0.5), Split(valid=0.3, near=0.5)):
        drops = Drops()
        kept = [r.origin for r in step.apply(iter(records), drops)]
        dropped = [r.origin for r, _, _ in drops]
        assert sorted(kept + dropped) == sorted(r.origin for r in records)
    assert len({family(r) for r in records}) == len(records)
