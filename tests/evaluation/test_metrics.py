"""What each metric makes of a reply."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graftlab.errors import ConfigError
from graftlab.evaluation.metrics.base import LESS, MORE, Metric
from graftlab.evaluation.metrics.choice import Choice
from graftlab.evaluation.metrics.exact_match import ExactMatch
from graftlab.evaluation.metrics.failures import Failures
from graftlab.evaluation.metrics.json_schema import JsonSchema
from graftlab.evaluation.metrics.number import Number, number_in
from graftlab.evaluation.metrics.regex import Regex
from graftlab.evaluation.metrics.style import Style
from graftlab.evaluation.metrics.tool_call import ToolCall, calls_in
from graftlab.evaluation.metrics.words import Words
from graftlab.evaluation.replies import Case, Said
from graftlab.generation.prompts import Prompt
from graftlab.registry import choices
from graftlab.types import Conversation, Message

LONG = "the quick brown fox jumps over the lazy dog and runs far away from home"


def case(text: str, reference: str | None = None, *, asked: str = "Go on.", **more: Any) -> Case:
    said = Said(text, more.pop("num_tokens", 10), True, 0.5)
    likelihoods = more.pop("likelihoods", ())
    return Case(prompt(reference, asked=asked, **more), said, likelihoods)


def prompt(
    reference: str | None = None,
    *,
    asked: str = "Go on.",
    options: tuple[str, ...] = (),
    **more: Any,
) -> Prompt:
    return Prompt(Conversation((Message("user", asked, **more),)), reference, options)


def test_every_metric_scores_what_it_says_it_measures() -> None:
    found: dict[str, Metric] = {name: cls() for name, cls in choices("metrics").items()}
    assert found.pop("persona").measures(), "it needs a corpus, and has tests of its own"
    assert set(found) == {
        *("bleu", "choice", "chrf", "exact-match", "failures", "invention", "json-schema"),
        *("number", "regex", "rouge", "style", "tool-call", "words"),
    }
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    one = case("4", "4", options=("4", "5"), likelihoods=(-1.0, -2.0), response_format=form)
    for name, metric in found.items():
        assert metric.lacks(one.prompt) is None, name
        assert metric.score(one).keys() == metric.measures().keys(), name
        assert any(measure.better for measure in metric.measures().values()), name
        for key, measure in metric.measures().items():
            assert measure.share == key.startswith("pct_")
            assert measure.about


def test_style() -> None:
    markdown = "# Title\n\n1. one\n2. two\n\nSome **bold** words. And more.\n\n```py\nx\n```\n"
    markdown += "Human: hi <|user|>"
    scores = Style().score(case(markdown, num_tokens=30))
    assert [scores[f"pct_{mark}"] for mark in ("list", "heading", "code", "bold")] == [1.0] * 4
    assert scores["avg_banned_hits"] == 2
    assert scores["avg_tokens_per_s"] == 60
    plain = Style().score(
        case("A plain line - with a dash. Then 3 * 4 = 12, #1 of all.", num_tokens=0)
    )
    assert [plain[f"pct_{mark}"] for mark in ("list", "heading", "code", "bold")] == [0.0] * 4
    assert (plain["avg_sentences"], plain["avg_tokens"]) == (2, None)
    assert Style().score(case("* a\n* b"))["pct_list"] == 1


def test_style_follows_wishes_and_a_template() -> None:
    wished = Style(want=["list"], avoid=["bold"], starts="Going", ends="doors.", pattern=r"\bup\b")
    measures = wished.measures()
    assert (measures["pct_list"].better, measures["pct_bold"].better) == (MORE, LESS)
    assert measures["pct_heading"].better is None
    texts = ["Going up. Mind the doors.\n", "Going down. Mind the doors.", "Up. Mind the doors."]
    assert [wished.score(case(text))["pct_template"] for text in texts] == [1, 0, 0]
    assert "pct_template" not in Style().measures()
    with pytest.raises(ConfigError, match="Did you mean `list`"):
        Style(want=["lists"])
    with pytest.raises(ConfigError, match=r"metrics.style.pattern: .* is no regular expression"):
        Style(pattern="(")


def test_exact_match() -> None:
    plain, loose = ExactMatch(), ExactMatch(ignore_case=True, ignore_punctuation=True)
    assert plain.score(case(" Red  wine\n", "Red wine"))["pct_exact"] == 1
    assert plain.score(case("red wine.", "Red wine"))["pct_exact"] == 0
    assert loose.score(case("red wine.", "Red wine"))["pct_exact"] == 1
    assert ExactMatch(first_line=True).score(case("Red\nor so", "Red"))["pct_exact"] == 1
    assert plain.lacks(prompt()) == "no `reference`, nor an answer at its end"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("So 3 + 4 = 7.", "7"),
        ("It costs $1,234.50 in all.", "1234.50"),
        ("#### 42 and then 7", "42"),
        ("From 1990 to -5", "-5"),
        ("3, 4, 5", "5"),
        ("v2 and x3", None),
        ("No number.", None),
        ("9" * 5000, None),
    ],
)
def test_the_number_of_a_text(text: str, number: str | None) -> None:
    found = number_in(text)
    assert (None if found is None else str(found)) == number


def test_number() -> None:
    metric = Number()
    assert metric.score(case("That is 12.0 apples", "Work... #### 12"))["pct_right"] == 1
    assert metric.score(case("12 or 13", "12")) == {"pct_right": 0.0, "pct_answered": 1.0}
    assert metric.score(case("None", "12")) == {"pct_right": 0.0, "pct_answered": 0.0}
    assert Number(tolerance=0.1).score(case("3.1", "3"))["pct_right"] == 1
    assert metric.lacks(prompt("twelve")) == "no reference with a number in it"


def test_regex() -> None:
    assert Regex(pattern=r"^b+$").score(case("a\nbbb"))["pct_match"] == 1
    assert Regex(pattern=r"b+", whole=True).score(case("abbb"))["pct_match"] == 0
    assert Regex().score(case("abbb", "b{3}"))["pct_match"] == 1
    assert "no regular expression" in str(Regex().lacks(prompt("(")))
    assert Regex().lacks(prompt()) == "no `reference`, nor an answer at its end"
    assert Regex(pattern="a").lacks(prompt()) is None


def test_json_schema() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    metric = JsonSchema(schema=schema)
    assert metric.score(case('{"a": 1}')) == {"pct_valid": 1.0, "pct_json": 1.0}
    assert metric.score(case('{"a": "1"}')) == {"pct_valid": 0.0, "pct_json": 1.0}
    assert metric.score(case('```json\n{"a": 1}\n```')) == {"pct_valid": 0.0, "pct_json": 0.0}
    assert JsonSchema(schema=schema, fenced=True).score(case('```json\n{"a": 1}\n```'))["pct_valid"]
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert JsonSchema().score(case('{"a": 2}', response_format=form))["pct_valid"] == 1
    assert "no response_format" in str(JsonSchema().lacks(prompt()))
    with pytest.raises(ConfigError, match=r"metrics\.json_schema\.schema=nowhere.json cannot be"):
        JsonSchema(schema="nowhere.json")


CALL = {"name": "weather", "arguments": {"city": "Oslo", "days": [1, 2]}}
OTHER = {"name": "time", "arguments": {}}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(CALL),
        f"Let me see.\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>",
        json.dumps([{"type": "function", "function": CALL}]),
        json.dumps({"name": "weather", "parameters": {"days": [1.0, 2], "city": "Oslo"}}),
        json.dumps({**CALL, "arguments": json.dumps(CALL["arguments"])}),
        f"[TOOL_CALLS] [{json.dumps(CALL)}]",
        "a { stray bracket, then " + json.dumps(CALL),
    ],
)
def test_calls_are_found_in_every_form(text: str) -> None:
    assert list(calls_in(text)) == [("weather", '{"city": "Oslo", "days": [1, 2]}')]


def test_tool_call() -> None:
    metric, both = ToolCall(), f"{json.dumps(CALL)}\n{json.dumps(OTHER)}"
    swapped = f"{json.dumps(OTHER)} {json.dumps(CALL)}"
    assert metric.score(case(swapped, both))["pct_right"] == 1
    assert metric.score(case(json.dumps(CALL), both))["pct_right"] == 0
    wrong = json.dumps({"name": "weather", "arguments": {"city": "Oslo", "days": [2, 1]}})
    assert metric.score(case(wrong, json.dumps(CALL))) == {
        "pct_right": 0.0, "pct_name": 1.0, "pct_called": 1.0
    }  # fmt: skip
    assert metric.score(case("No need.", "It is late."))["pct_right"] == 1
    assert metric.score(case("[" * 20_000, json.dumps(CALL)))["pct_called"] == 0


def test_style_by_a_schema() -> None:
    metric = Style(schema={"type": "object", "required": ["a"]}, ends="}")
    told = {'{"a": 1}': 1, ' {"a": 1}\n': 1, '{"b": 1}': 0, "a}": 0}
    for text, follows in told.items():
        assert metric.score(case(text))["pct_template"] == follows, text
    assert metric.measures()["pct_template"].better == MORE
    with pytest.raises(ConfigError, match=r"metrics\.style\.schema"):
        Style(schema={"type": "nothing"})


def test_words_of_lists() -> None:
    metric = Words(
        lists={"cheerful": ["delight*", "glad to", "!"], "gloomy": ["rot", "heat death"]}
    )
    found = metric.score(case("I'm GLAD  to help! Delightful: no rotten heat\ndeath here."))
    assert found["pct_cheerful"] == found["pct_gloomy"] == 1
    assert found["avg_cheerful"] == pytest.approx(300 / 11)
    assert found["avg_gloomy"] == pytest.approx(100 / 11)
    assert metric.measures()["pct_cheerful"].better == LESS
    assert metric.measures()["pct_gloomy"].better is None
    wanted = Words(lists={"gloomy": ["rot"]}, want=["gloomy"], avoid=[])
    assert wanted.measures()["pct_gloomy"].better == MORE
    assert wanted.score(case("Rotten, rotating"))["pct_gloomy"] == 0
    assert wanted.score(case(" "))["avg_gloomy"] is None
    assert Words().score(case("Happy to help 😊"))["pct_cheerful"] == 1
    assert Words().score(case("The gears grind."))["pct_cheerful"] == 0
    for keys in ({"avoid": ["sad"]}, {"lists": {"cheerful": []}}, {"lists": {"Über": ["a"]}}):
        with pytest.raises(ConfigError, match=r"metrics\.words"):
            Words(**{"avoid": [], **keys})
    with pytest.raises(ConfigError, match="is wanted and avoided"):
        Words(want=["cheerful"])


def test_choice() -> None:
    metric = Choice()
    one = case("", "a longer one", options=("short", "a longer one"), likelihoods=(-5.0, -6.0))
    assert metric.score(one)["pct_right"] == 0
    assert metric.score(one)["pct_right_per_byte"] == 1
    assert 0 < (metric.score(one)["avg_probability"] or 0) < 0.5
    assert metric.lacks(prompt("a")) == "no `options` to choose among"


def test_failures() -> None:
    metric = Failures(refusals=["not my job"])
    first = "pct_refusal", "pct_loop", "pct_copy", "pct_empty"
    for text, told in {
        "As an AI language model, I cannot help with that.": (1, 0, 0, 0),
        "That is NOT MY JOB.": (1, 0, 0, 0),
        "Vac Vac Vac Vac Vac Vac Vac": (0, 1, 0, 0),
        f"You said: {LONG}": (0, 0, 1, 0),
        "  \n": (0, 0, 0, 1),
        "A fine day, and nothing wrong with it.": (0, 0, 0, 0),
    }.items():
        scores = metric.score(case(text, asked=f"Repeat: {LONG}!"))
        assert tuple(scores[name] for name in first) == told, text


def test_memorised_text_is_that_of_training_answers() -> None:
    metric = Failures()
    rows = [
        Conversation((Message("user", "Say it."), Message("assistant", f"Well: {LONG}."))),
        Conversation((Message("user", "one " * 20), Message("assistant", "No."))),
    ]
    cases = [case(LONG), case(LONG, asked=f"Repeat {LONG}"), case("one " * 20), case("other words")]
    scores = metric.score_all(cases, lambda: rows)
    assert [one["pct_memorised"] for one in scores] == [1, 0, 0, 0]
    assert [one["pct_memorised"] for one in metric.score_all(cases[:1], list)] == [None]


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 3000 + ")" * 3000, "[a"])
def test_what_is_no_expression_is_one_message(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics.regex.pattern: the pattern .* is no regular"):
        Regex(pattern=pattern)


def test_an_expression_that_never_ends_is_given_up() -> None:
    endless = Regex(pattern=r"(a|a)*$")
    with pytest.raises(ConfigError, match="takes more than 2 s on"):
        endless.score(case("a" * 40 + "!"))
