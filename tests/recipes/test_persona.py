"""Persona pairs: three inputs for each text, the text itself as the answer, misses counted."""

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
from graftlab.recipes.persona import BATCH, Persona
from graftlab.recipes.record import Record
from graftlab.recipes.teachers.base import VARIATIONS, Miss
from graftlab.text.frame import load_frame
from recipe_drops import MESSY, chat_record, run_step, text_record


class Echo:
    """A teacher that says what was asked, and misses where a text says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []

    def rewrite(self, texts: Sequence[str], variation: str) -> list[str | Miss]:
        self.asked.append((len(texts), variation))
        return [
            Miss("no answer", "because") if variation in text else f"{variation} of {text}"
            for text in texts
        ]


def test_each_text_becomes_one_chat_per_variation() -> None:
    records = [text_record(f"Text {n}.", line=n, chunk=str(n)) for n in (1, 2)]
    out, drops = run_step(Persona().taught_by(Echo()), records)
    assert [record.labels for record in out] == [
        {"chunk": str(n), "variation": name} for n in (1, 2) for name in VARIATIONS
    ]
    assert drops.rows == []
    for record in out:
        system, user, assistant = record.body["messages"]
        frame = load_frame(f"systems-theologian-{record.labels['variation']}")
        text = f"Text {record.labels['chunk']}."
        assert record.kind == "chat"
        assert record.source == "core"
        assert system == {"role": "system", "content": frame.system.strip()}
        assert user["content"] == frame.user_turn(f"{record.labels['variation']} of {text}")
        assert assistant == {"role": "assistant", "content": text}


def test_the_persona_is_the_one_that_sample_frames() -> None:
    wanted = load_frame("systems-theologian").system
    assert {load_frame(f"systems-theologian-{name}").system for name in VARIATIONS} == {wanted}


def test_a_miss_is_counted_and_the_others_stay() -> None:
    record = text_record("Say nothing of neutral.")
    out, drops = run_step(Persona().taught_by(Echo()), [record])
    assert [row.labels["variation"] for row in out] == ["dropout", "abstract"]
    assert [(row.labels["piece"], why, said) for row, why, said in drops.rows] == [
        ("neutral", "no answer", "neutral: because")
    ]


def test_a_text_without_any_variation_is_dropped_once() -> None:
    record = text_record("neutral dropout abstract")
    out, drops = run_step(Persona().taught_by(Echo()), [record])
    assert out == []
    assert drops.reasons == {persona.NOTHING: 1}
    assert "dropout: no answer because" in drops.rows[0][2]


def test_a_teacher_that_refuses_is_not_believed() -> None:
    class Shy:
        def rewrite(self, texts: Sequence[str], variation: str) -> list[str | Miss]:
            return ["I'm sorry, but I cannot rewrite this text."] * len(texts)

    out, drops = run_step(Persona(variations=["neutral"]).taught_by(Shy()), [text_record("A.")])
    assert out == []
    assert persona.REFUSED in drops.rows[0][2]


def test_teachers_are_asked_in_batches() -> None:
    echo = Echo()
    records = [text_record(f"Text {n}.", line=n) for n in range(1, BATCH + 6)]
    out, _ = run_step(Persona(variations=["dropout"]).taught_by(echo), records)
    assert echo.asked == [(BATCH, "dropout"), (5, "dropout")]
    assert [record.origin for record in out] == [record.origin for record in records]


def test_only_texts_are_taken() -> None:
    records = [chat_record("Why?", "So."), text_record("  \n "), text_record("Yes.", line=2)]
    out, drops = run_step(Persona().taught_by(Echo()), records)
    assert len(out) == 3
    assert drops.reasons == {persona.NOT_TEXT: 2}


def test_frames_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("system: You are stone.\ninstruction: Weigh it.\n", encoding="utf-8")
    mine = Persona(variations=["neutral"], frames={"neutral": str(file)})
    out, _ = run_step(mine.taught_by(Echo()), [text_record("A.")])
    assert out[0].body["messages"][0]["content"] == "You are stone."


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"variations": []}, "persona.variations"),
        ({"variations": ["neutral", "neutral"]}, "persona.variations"),
        ({"variations": ["abstrakt"]}, "Did you mean `abstract`"),
        ({"frames": {"neutral": "systems-theologian"}}, "persona.frames.dropout"),
    ],
)
def test_wrong_values_are_refused_by_key(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Persona(**wrong)  # type: ignore[arg-type]


def test_a_missing_frame_is_named() -> None:
    with pytest.raises(ConfigError, match=r"persona\.frames\.neutral: frame=nobody"):
        Persona(variations=["neutral"], frames={"neutral": "nobody"}).taught_by(Echo())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "", "neutral", "neutral dropout abstract"]), max_size=70))
def test_in_is_kept_plus_dropped_for_any_texts(texts: list[str]) -> None:
    records = [text_record(text, line=n) for n, text in enumerate(texts, 1)]
    run_step(Persona().taught_by(Echo()), records)


def test_the_whole_chain_by_rule_on_the_messy_book() -> None:
    chunks, _ = run_step(Curate(), [text_record(MESSY.read_text(encoding="utf-8"))])
    told = [Record(c.kind, c.body, f"chunk:{n}", c.source, c.labels) for n, c in enumerate(chunks)]
    pairs, _ = run_step(Persona(), told)
    single = [Record(p.kind, p.body, f"pair:{n}", p.source, p.labels) for n, p in enumerate(pairs)]
    kept, drops = run_step(Guards(), single)
    assert len(chunks) == 2
    assert len(pairs) == 6
    assert kept == single, drops.rows
    assert {pair.body["messages"][-1]["content"] for pair in pairs} == {
        chunk.body["text"] for chunk in chunks
    }
