"""A job tells its texts as they come, ends at stops, and is refused where it cannot be answered."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftlab.generation.loop import decode
from graftlab.generation.sampling import Generation
from graftlab.models.hf import HFModel
from graftlab.serving.jobs import Ended, Event, Piece, StopText, make_job
from graftlab.serving.models import ServedModel
from graftlab.serving.requests import RequestError, read_request
from served import LIMIT, SYSTEM, Shop
from text_tokenizers import PLAIN_TOOLS

ASK = {"role": "user", "content": "Which year was the record made?"}
SCHEMA = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def job_of(shop: Shop, name: str, told: list[Event], **body: Any) -> Any:
    whole = {"model": name, "messages": [ASK], "max_tokens": 12, "temperature": 0, **body}
    asked = read_request(whole, Generation(), most_choices=4)
    return make_job(asked, shop.models[name], shop.base, told.append)


def answered(shop: Shop, name: str, **body: Any) -> tuple[dict[int, str], dict[int, Ended]]:
    told: list[Event] = []
    job = job_of(shop, name, told, **body)
    with job.model.speaking():
        decode(shop.base, job.turns)
    texts: dict[int, str] = {}
    for event in told:
        if isinstance(event, Piece):
            texts[event.index] = texts.get(event.index, "") + event.text
    return texts, {event.index: event for event in told if isinstance(event, Ended)}


def test_a_reply_is_that_of_sample(shop: Shop) -> None:
    for name in shop.models:
        system = [("system", SYSTEM)] if name == "one" else []
        texts, ends = answered(shop, name)
        assert texts[0] == shop.expected(name, *system, ("user", ASK["content"]), max_new_tokens=12)
        assert ends == {0: Ended(0, "length", 12)}


def test_a_system_turn_of_the_request_goes_before_that_of_training(shop: Shop) -> None:
    system = {"role": "system", "content": "Sing."}
    texts, _ = answered(shop, "one", messages=[system, ASK])
    expected = shop.expected(
        "one", ("system", "Sing."), ("user", ASK["content"]), max_new_tokens=12
    )
    assert texts[0] == expected


def test_choices_draw_from_seeds_behind_each_other(shop: Shop) -> None:
    texts, ends = answered(shop, "two", n=3, seed=7, temperature=1.0)
    for index in range(3):
        drawn = {"temperature": 1.0, "seed": 7 + index, "max_new_tokens": 12}
        assert texts[index] == shop.expected("two", ("user", ASK["content"]), **drawn)
    assert len(set(texts.values())) == 3
    assert sorted(ends) == [0, 1, 2]


def test_a_stop_ends_the_reply_and_is_no_part_of_it(shop: Shop) -> None:
    whole = answered(shop, "two", max_tokens=40)[0][0]
    stop = whole[len(whole) // 2 :][:3]
    texts, ends = answered(shop, "two", max_tokens=40, stop=[stop, "never"])
    assert texts[0] == whole[: whole.index(stop)]
    assert ends[0].reason == "stop"
    assert ends[0].num_tokens < 40


@given(
    st.text("abc", max_size=20),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_stops_in_any_pieces(text: str, stops: list[str], data: Any) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    heard: list[str] = []
    stream = StopText(stops, heard.append)
    for start, end in pairwise([0, *cuts, len(text)]):
        if not stream.found:
            stream.put(text[start:end])
    # The first piece in which a stop is whole decides, and there the first place.
    expected = next(
        (
            text[: min(places)]
            for size in [*cuts, len(text)]
            if (places := [text[:size].find(stop) for stop in stops if stop in text[:size]])
        ),
        None,
    )
    if not stream.found:
        stream.end()
    assert stream.found is (expected is not None)
    assert "".join(heard) == (text if expected is None else expected)
    assert "" not in heard


def test_a_schema_holds_the_reply(shop: Shop) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "r", "schema": SCHEMA}}
    texts, ends = answered(shop, "one", max_tokens=60, temperature=1.3, response_format=wanted)
    assert isinstance(json.loads(texts[0])["year"], int)
    assert ends[0].reason == "stop"
    texts, _ = answered(shop, "one", max_tokens=60, response_format={"type": "json_object"})
    assert isinstance(json.loads(texts[0]), dict)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": [ASK, ASK]}, "turns alternate"),
        ({"messages": [{"role": "user", "content": "a <|im_end|>"}]}, "reserved token <|im_end|>"),
        ({"messages": [ASK, {"role": "assistant", "content": "x"}]}, "the last turn is assistant"),
        ({"messages": [{"role": "user", "content": "x " * LIMIT}]}, f"has room for {LIMIT}"),
        ({"tools": [TOOL]}, "shows no tools"),
        (
            {
                "max_tokens": 2,
                "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
            },
            "at most 2 tokens follows response_format: the shortest takes",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"type": "array", "uniqueItems": True}},
                }
            },
            "response_format: response_format cannot be used as a schema",
        ),
    ],
)
def test_what_a_model_cannot_be_asked(shop: Shop, body: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        job_of(shop, "two", [], **body)
    assert message in str(error.value)
    assert "generation." not in str(error.value)
    assert error.value.status == 400


def test_a_template_that_shows_tools_is_given_them(shop: Shop, tmp_path: Path) -> None:
    template = tmp_path / "tools.jinja"
    template.write_text(PLAIN_TOOLS, encoding="utf-8")
    tokenizer = HFModel(path=str(shop.base.folder), template=str(template)).load_tokenizer()
    model: ServedModel = replace(shop.models["base"], tokenizer=tokenizer)
    asked = read_request(
        {"model": "base", "messages": [ASK], "tools": [TOOL]}, Generation(), most_choices=1
    )
    job = make_job(asked, model, shop.base, lambda event: None)
    assert '"name": "look"' in tokenizer.decode(job.turns[0].prompt)
