"""Requests: what each parameter means, and that nothing which would be lost is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from graftlab.generation.sampling import ROW, Generation
from graftlab.serving.requests import ChatRequest, RequestError, read_request
from graftlab.types import Message

ASK = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "r", "strict": True, "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
DEFAULTS = Generation(max_new_tokens=7, temperature=0.3, top_p=0.5, seed=1)


def read(**body: Any) -> ChatRequest:
    whole = {"model": "base", "messages": ASK, **body}
    return read_request(whole, DEFAULTS, most_choices=4)


def refused(**body: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        read(**body)
    assert error.value.status == 400
    return error.value


def test_what_is_left_out_is_from_the_server() -> None:
    asked = read()
    assert asked.model == "base"
    assert asked.conversation.messages == (Message("user", "Hi"),)
    assert (asked.generation.max_new_tokens, asked.generation.temperature) == (7, 0.3)
    assert asked.generation.top_p == 0.5
    assert (asked.num_choices, asked.stops, asked.stream, asked.with_usage) == (1, (), False, False)
    assert asked.generation.seed != read().generation.seed  # another draw each time


def test_what_is_given_is_taken() -> None:
    asked = read(
        temperature=1, top_p=0.9, top_k=5, min_p=0.1, max_tokens=20, seed=4, n=2, stop="x",
        stream=True, stream_options={"include_usage": True}, user="me", logprobs=False,
        frequency_penalty=0.0, tool_choice=None, metadata={"a": "b"},
    )  # fmt: skip
    assert asked.generation == Generation(
        temperature=1.0, top_p=0.9, top_k=5, min_p=0.1, max_new_tokens=20, seed=4
    )
    assert (asked.num_choices, asked.stops, asked.stream, asked.with_usage) == (
        2,
        ("x",),
        True,
        True,
    )
    assert read(max_completion_tokens=9).generation.max_new_tokens == 9
    assert read(stop=["a", "b"]).stops == ("a", "b")


def test_messages_in_every_form() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    asked = read(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "tool_call_id": "c", "content": "3"},
        ],
        tools=[TOOL],
    )
    system, user, assistant, tool = asked.conversation.messages
    assert (system.role, system.content, user.content) == ("system", "Be brief.", "Ab")
    assert assistant.tool_calls[0]["function"]["arguments"] == {"a": 1}
    assert (tool.role, tool.tool_call_id, tool.content) == ("tool", "c", "3")
    assert asked.conversation.tools == (TOOL,)
    assert read(tools=[TOOL], tool_choice="none").conversation.tools == ()


def test_a_response_format_belongs_to_the_last_question() -> None:
    asked = read(
        messages=[*ASK, {"role": "assistant", "content": "Yes."}, *ASK], response_format=FORMAT
    )
    first, _, last = asked.conversation.messages
    assert asked.generation.schema == ROW
    assert first.response_format is None
    assert last.response_format == FORMAT
    any_object = read(response_format={"type": "json_object"}).conversation.messages[0]
    assert any_object.response_format is not None
    assert any_object.response_format["json_schema"]["schema"] == {"type": "object"}
    free = read(response_format={"type": "text"})
    assert free.conversation.messages[0].response_format is None


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"model": None}, "model", "model is missing"),
        ({"model": 3}, "model", "model must be text, this is a number"),
        ({"messages": None}, "messages", "messages is missing"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": "Hi"}, "messages", "must be an array"),
        ({"messages": [{"content": "x"}]}, "messages", "turn 1 has no role"),
        ({"messages": [{**ASK[0], "mood": "x"}]}, "messages", "`mood`, which is not read"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages",
            "image_url",
        ),
        ({"temperature": -1}, "temperature", "temperature=-1 is out of range"),
        ({"temperature": "hot"}, "temperature", "must be a number, this is a string"),
        ({"temperature": float("nan")}, "temperature", "must be a finite number"),
        ({"temperature": 10**400}, "temperature", "out of range"),
        ({"temperature": True}, "temperature", "must be a number"),
        ({"top_p": 0}, "top_p", "top_p=0 is out of range"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": 1.5}, "max_tokens", "must be a whole number"),
        ({"max_tokens": 10**30}, "max_tokens", "out of range"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "differ: keep one"),
        ({"n": 5}, "n", "at most 4"),
        ({"seed": 2**63}, "seed", "out of range"),
        ({"stop": ["a"] * 5}, "stop", "4 texts at most"),
        ({"stop": [""]}, "stop", "not empty"),
        ({"stream": "yes"}, "stream", "must be true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "belongs to stream=true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "include_usage"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "schema"),
        ({"tools": {}}, "tools", "must be an array"),
        ({"logprobs": True}, "logprobs", "logprobs=true is not supported"),
        ({"logit_bias": {"1": 5}}, "logit_bias", "not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
        ({"tool_choice": "required"}, "tool_choice", "not supported"),
        ({"temprature": 1}, "temprature", "Did you mean `temperature`?"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(body: dict[str, Any], param: str, message: str) -> None:
    error = refused(**body)
    assert message in str(error)
    assert error.param == param


def test_all_that_is_wrong_is_told_at_once() -> None:
    error = refused(temperature=-1, logprobs=True, messages=[])
    assert error.param is None
    for part in ("temperature=-1", "logprobs=true", "at least one message"):
        assert part in str(error)


@pytest.mark.parametrize("body", [[], "x", None, 3])
def test_a_body_that_is_no_object(body: Any) -> None:
    with pytest.raises(RequestError, match="must be a JSON object"):
        read_request(body, DEFAULTS, most_choices=1)
