"""Persona pairs: inputs for each text, the text itself as the answer, misses counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.recipes import persona
from graftlab.recipes.curate import Curate
from graftlab.recipes.guards import Guards
from graftlab.recipes.persona import BATCH, VARIATIONS, Persona
from graftlab.recipes.record import Record
from graftlab.recipes.rewriters.base import Miss
from graftlab.text.frame import load_frame
from recipe_drops import MESSY, chat_record, run_step, text_record


class Echo:
    """A rewriter that says what was asked, and misses where a text says so."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, texts: Sequence[str]) -> list[str | Miss]:
        self.asked.append(len(texts))
        return [Miss("no answer", "because") if "nothing" in t else f"Told: {t}" for t in texts]


def test_each_text_becomes_one_chat_per_variation() -> None:
    texts = ["The dogs barked.", "A cold wind came."]
    records = [text_record(text, line=n, chunk=str(n)) for n, text in enumerate(texts)]
    out, drops = run_step(Persona().with_rewriter(Echo()), records)
    assert [record.labels for record in out] == [
        {"chunk": str(n), "variation": name} for n in (0, 1) for name in VARIATIONS
    ]
    assert drops.rows == []
    wanted = [
        *("Told: The dogs barked.", "- dogs, barked", "- [THINGS], barked"),
        *("Told: A cold wind came.", "- wind, came", "- [THING], came"),
    ]
    for record, said in zip(out, wanted, strict=True):
        system, user, assistant = record.body["messages"]
        frame = load_frame(f"systems-theologian-{record.labels['variation']}")
        assert record.kind == "chat"
        assert record.source == "core"
        assert system == {"role": "system", "content": frame.system.strip()}
        assert user["content"] == frame.user_turn(said)
        assert assistant == {"role": "assistant", "content": texts[int(record.labels["chunk"])]}


def test_without_a_rewriter_there_are_two() -> None:
    out, drops = run_step(Persona(), [text_record("The dogs barked.")])
    assert [row.labels["variation"] for row in out] == ["dropout", "abstract"]
    assert drops.rows == []
    with pytest.raises(ConfigError, match="needs a rewriter: rewriter=http"):
        Persona(variations=["neutral"]).with_rewriter(None)


def test_aggression_reaches_the_outlines() -> None:
    text = "Dogs, cats, horses and cows saw the fire, ran from the farm and hid in the woods."
    said = {}
    for aggression in (0.0, 1.0):
        persona = Persona(variations=["dropout"], aggression=aggression)
        (row,), _ = run_step(persona, [text_record(text)])
        said[aggression] = row.body["messages"][1]["content"].split("- ")[-1].split(", ")
    assert len(said[0.0]) == 10
    assert len(said[1.0]) == 1
    assert said[1.0][0] in said[0.0]


def test_the_persona_is_the_one_that_sample_frames() -> None:
    wanted = load_frame("systems-theologian").system
    assert {load_frame(f"systems-theologian-{name}").system for name in VARIATIONS} == {wanted}


def test_a_miss_is_counted_and_the_others_stay() -> None:
    out, drops = run_step(Persona().with_rewriter(Echo()), [text_record("Dogs say nothing.")])
    assert [row.labels["variation"] for row in out] == ["dropout", "abstract"]
    assert [(row.labels["piece"], why, said) for row, why, said in drops.rows] == [
        ("neutral", "no answer", "neutral: because")
    ]


def test_a_text_without_any_variation_is_dropped_once() -> None:
    out, drops = run_step(Persona().with_rewriter(Echo()), [text_record("It was nothing.")])
    out_of_words, _ = run_step(Persona().with_rewriter(Echo()), [text_record("She had it.")])
    assert [row.labels["variation"] for row in out] == []
    assert drops.reasons == {persona.NOTHING: 1}
    assert f"dropout: {persona.NO_NOUN}" in drops.rows[0][2]
    assert [row.labels["variation"] for row in out_of_words] == ["neutral"]


def test_a_rewriter_that_refuses_is_not_believed() -> None:
    def shy(texts: Sequence[str]) -> list[str | Miss]:
        return ["I'm sorry, but I cannot rewrite this text."] * len(texts)

    only = Persona(variations=["neutral"]).with_rewriter(shy)
    out, drops = run_step(only, [text_record("A.")])
    assert out == []
    assert persona.REFUSED in drops.rows[0][2]


def test_a_rewriter_that_talks_about_its_task_is_not_believed() -> None:
    text = MESSY.read_text(encoding="utf-8").split("\n\n")[6:12]
    book = " ".join(text)
    told = ["The passage is written in plain, neutral English.", " ".join(book.split()[::4]) + "."]

    def rewrite(texts: Sequence[str]) -> list[str | Miss]:
        return [told.pop(0) for _ in texts]

    step = Persona(variations=["neutral"]).with_rewriter(rewrite)
    out, drops = run_step(step, [text_record(book), text_record(book, line=2)])
    assert drops.reasons == {persona.NOTHING: 1}
    assert persona.OFF_TOPIC in drops.rows[0][2]
    assert [record.origin for record in out] == ["book.txt:2"]


def test_rewriters_are_asked_in_batches() -> None:
    echo = Echo()
    records = [text_record(f"Text {n}.", line=n) for n in range(1, BATCH + 6)]
    out, _ = run_step(Persona(variations=["neutral"]).with_rewriter(echo), records)
    assert echo.asked == [BATCH, 5]
    assert [record.origin for record in out] == [record.origin for record in records]


def test_only_texts_are_taken() -> None:
    records = [chat_record("Why?", "So."), text_record("  \n "), text_record("Dogs.", line=2)]
    out, drops = run_step(Persona().with_rewriter(Echo()), records)
    assert len(out) == 3
    assert drops.reasons == {persona.NOT_TEXT: 2}


def test_frames_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("system: You are stone.\ninstruction: Weigh it.\n", encoding="utf-8")
    mine = Persona(variations=["neutral"], frames={"neutral": str(file)})
    out, _ = run_step(mine.with_rewriter(Echo()), [text_record("A.")])
    assert out[0].body["messages"][0]["content"] == "You are stone."


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"variations": []}, "persona.variations"),
        ({"variations": ["neutral", "neutral"]}, "persona.variations"),
        ({"variations": ["abstrakt"]}, "Did you mean `abstract`"),
        ({"frames": {"neutral": "systems-theologian"}}, "persona.frames.dropout"),
        ({"aggression": 1.5}, "persona.aggression"),
    ],
)
def test_wrong_values_are_refused_by_key(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Persona(**wrong)  # type: ignore[arg-type]


def test_a_missing_frame_is_named() -> None:
    with pytest.raises(ConfigError, match=r"persona\.frames\.neutral: frame=nobody"):
        Persona(variations=["neutral"], frames={"neutral": "nobody"}).with_rewriter(Echo())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["Dogs bark.", "", "It was.", "It was nothing."]), max_size=70))
def test_in_is_kept_plus_dropped_for_any_texts(texts: list[str]) -> None:
    records = [text_record(text, line=n) for n, text in enumerate(texts, 1)]
    run_step(Persona().with_rewriter(Echo()), records)


def test_the_whole_chain_on_the_messy_book() -> None:
    chunks, _ = run_step(Curate(), [text_record(MESSY.read_text(encoding="utf-8"))])
    told = [Record(c.kind, c.body, f"chunk:{n}", c.source, c.labels) for n, c in enumerate(chunks)]
    pairs, _ = run_step(Persona(), told)
    single = [Record(p.kind, p.body, f"pair:{n}", p.source, p.labels) for n, p in enumerate(pairs)]
    kept, drops = run_step(Guards(), single)
    assert len(chunks) == 2
    assert len(pairs) == 4
    assert kept == single, drops.rows
    assert {pair.body["messages"][-1]["content"] for pair in pairs} == {
        chunk.body["text"] for chunk in chunks
    }
