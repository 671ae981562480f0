"""Tool calls: what each form of data calls them, read into the one that chat templates expect.

{"tool_calls": [{"id"?, "type"?, "function": {"name", "arguments"}}, ...]}   OpenAI
{"function_call": {"name", "arguments"}}                                     OpenAI, the older form
{"from": "function_call", "value": {"name", "arguments"} or several}         ShareGPT

Arguments are an object, or one as JSON in a text; its keys keep their order, its values their
types, and none is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graftlab.data.decoding import decoded
from graftlab.data.keys import is_blank
from graftlab.data.problems import RowProblem, kind_of
from graftlab.files.reading import DEEPEST, TOO_DEEP, deeper_than
from graftlab.types import Message

CALL_TURNS = ("function_call", "tool_call")
"""Roles of turns that are a call."""

RESULT_TURNS = ("tool", "observation", "function", "tool_response", "tool_result")
"""Roles of turns that hold what a tool gave back."""

CALL_KEYS = frozenset({"tool_calls", "function_call"})
_CALL = frozenset({"id", "type", "function", "index"})
_FUNCTION = frozenset({"name", "arguments"})


def read_calls(said: str, turn: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The calls of an assistant's turn, which messages call `said`. Raises RowProblem."""
    calls, older = _parsed(said, turn.get("tool_calls")), turn.get("function_call")
    if is_blank(calls):
        return () if is_blank(older) else (_call(said, older),)
    if not is_blank(older):
        raise RowProblem(f"{said} has both `tool_calls` and `function_call`: keep one")
    if not isinstance(calls, list):
        raise RowProblem(
            f"{said}: tool_calls must be an array of objects, this is {kind_of(calls)}"
        )
    return tuple(_call(said, call) for call in calls)


def call_turn(said: str, content: Any) -> tuple[dict[str, Any], ...]:
    """The calls of a turn that is nothing else: one, or a list of them. Raises RowProblem."""
    found = _parsed(said, content)
    calls = found if isinstance(found, list) else [found]
    if not calls:
        raise RowProblem(f"{said} is a tool call without a name")
    return tuple(_call(said, call) for call in calls)


def _parsed(said: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return decoded(value)
    except ValueError as error:
        raise RowProblem(f"{said} is a tool call that is not JSON ({error})") from None


def _call(said: str, call: Any) -> dict[str, Any]:
    call = _parsed(said, call)
    if not isinstance(call, dict):
        raise RowProblem(f"{said}: a tool call must be an object, this is {kind_of(call)}")
    function = _parsed(said, call.get("function"))
    if function is None:
        function, call = call, {}
    if not isinstance(function, dict):
        raise RowProblem(f"{said}: a tool call's function is {kind_of(function)}, not an object")
    for holder, known in ((call, _CALL), (function, _FUNCTION | ({"id", "type"} - call.keys()))):
        lost = [key for key in holder if key not in known and not is_blank(holder[key])]
        if lost:
            raise RowProblem(f"{said} is a tool call with `{lost[0]:.40}`, which is not read")
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RowProblem(f"{said} is a tool call without a name")
    kind, link = (call or function).get("type"), (call or function).get("id")
    if not is_blank(kind) and kind != "function":
        raise RowProblem(f"{said}: a tool call of the type {kind!r:.40}: only functions are read")
    if not is_blank(link) and not isinstance(link, str):
        raise RowProblem(f"{said}: the id of a tool call must be text, this is {kind_of(link)}")
    arguments = _arguments(said, name, function.get("arguments"))
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if is_blank(link) else {"id": link, **made}


def _arguments(said: str, name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.strip():
        try:
            value = decoded(value)
        except ValueError as error:
            raise RowProblem(
                f"{said}: the arguments of `{name:.40}` are a text that is not JSON ({error})"
            ) from None
    if is_blank(value) or (isinstance(value, str) and not value.strip()):
        return {}
    if not isinstance(value, dict):
        seen = kind_of(value)
        raise RowProblem(f"{said}: the arguments of `{name:.40}` must be an object, this is {seen}")
    if deeper_than(value, DEEPEST):
        raise RowProblem(f"{said}: the arguments of `{name:.40}`: {TOO_DEEP}")
    return value


def unlisted(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[str]:
    """The names that are called and not among the tools, in order, each once."""
    listed = {name_of(tool) for tool in tools}
    called = [call["function"]["name"] for turn in messages for call in turn.tool_calls]
    return [name for name in dict.fromkeys(called) if name not in listed]


def name_of(tool: dict[str, Any]) -> Any:
    """The name under which a tool is called, in either form."""
    inner = tool.get("function")
    return (inner if isinstance(inner, dict) else tool).get("name")
