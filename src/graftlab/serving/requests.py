"""What is asked of POST /v1/chat/completions, read from JSON; whatever would be lost is refused."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from graftlab.data.keys import Unread, brief
from graftlab.data.problems import RowProblem, kind_of
from graftlab.data.turns import read_format, read_tools, read_turns
from graftlab.errors import ConfigError, did_you_mean, require_range
from graftlab.generation.sampling import ROW, Generation
from graftlab.types import Conversation, Message

MOST_STOPS = 4
_JSON_OBJECT = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
"""`json_object` asks for any object."""
_READ = frozenset(
    {
        *("model", "messages", "tools", "response_format", "stream", "stream_options", "n"),
        *("temperature", "top_p", "top_k", "min_p", "seed", "stop"),
        *("max_tokens", "max_completion_tokens"),
    }
)
_CHANGES_NOTHING = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"),
    }
)
"""Of a service, not of the reply."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("frequency_penalty", "presence_penalty"), (0,)),
    "logit_bias": ({},),
    "logprobs": (False,),
    "tool_choice": ("auto", "none"),
    "modalities": (["text"],),
}
"""What is not done here, and the values that ask for nothing of it."""


class RequestError(Exception):
    """A request that cannot be answered; becomes OpenAI's error JSON."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request, before anybody knows whether that model can answer it."""

    model: str
    conversation: Conversation
    generation: Generation
    """With the seed of the first choice."""
    num_choices: int = 1
    stops: tuple[str, ...] = ()
    """Texts at which a reply ends; they are not part of it."""
    stream: bool = False
    with_usage: bool = False
    """Count tokens at the end of a stream."""


def read_request(body: Any, defaults: Generation, *, most_choices: int) -> ChatRequest:
    """The request that `body` is; what it leaves out is from `defaults`, but the seed, which is
    another one each time.

    Raises RequestError with everything that is wrong.
    """
    if not isinstance(body, dict):
        raise RequestError(f"the request must be a JSON object, this is {kind_of(body)}.")
    given = {key: value for key, value in body.items() if value is not None}
    reader = _Reader(given)
    reader.refuse_others()
    model = reader.take("model", _text)
    if model is None and "model" not in given:
        reader.problem("model", "model is missing: GET /v1/models lists them.")
    conversation = reader.conversation()
    generation = reader.generation(defaults)
    num_choices = reader.take("n", _whole(least=1, most=most_choices))
    stops = reader.take("stop", _stops)
    stream = reader.take("stream", _boolean)
    with_usage = reader.take("stream_options", _usage)
    if with_usage is not None and not stream:
        reader.problem("stream_options", "stream_options belongs to stream=true.")
    if reader.problems:
        params = dict.fromkeys(param for param, _ in reader.problems)
        message = " ".join(dict.fromkeys(text for _, text in reader.problems))
        raise RequestError(message, param=next(iter(params)) if len(params) == 1 else None)
    assert model is not None
    assert conversation is not None
    assert generation is not None
    return ChatRequest(
        model,
        conversation,
        generation,
        num_choices or 1,
        stops or (),
        bool(stream),
        bool(with_usage),
    )


class _Reader:
    """Takes values out of a request, and notes what is wrong with each."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.problems: list[tuple[str, str]] = []

    def problem(self, param: str, text: str) -> None:
        self.problems.append((param, text))

    def take(self, key: str, read: Callable[[str, Any], Any]) -> Any:
        """`read(key, value)`; None where it is not given, or wrong."""
        if key not in self.given:
            return None
        try:
            return read(key, self.given[key])
        except (ConfigError, RowProblem) as error:
            text = str(error)
            self.problem(key, text if text.endswith(".") else f"{text}.")
        return None

    def refuse_others(self) -> None:
        for key, value in self.given.items():
            if key in _NEUTRAL and not any(value == neutral for neutral in _NEUTRAL[key]):
                self.problem(key, f"{key}={brief(value)} is not supported here: leave it out.")
            elif key not in (*_READ, *_CHANGES_NOTHING, *_NEUTRAL):
                hint = did_you_mean(key, _READ)
                self.problem(key, f"`{brief(key)}` is not a parameter that is read here.{hint}")

    def conversation(self) -> Conversation | None:
        if "messages" not in self.given:
            self.problem("messages", "messages is missing.")
        messages = self.take("messages", _messages)
        tools = self.take("tools", lambda _, value: read_tools({"tools": value})) or ()
        wanted = self.take("response_format", _format)
        if messages is None:
            return None
        if wanted is not None:
            messages = _with_format(messages, wanted)
        tools = () if self.given.get("tool_choice") == "none" else tools
        return Conversation(messages, "messages", 0, tools)

    def generation(self, defaults: Generation) -> Generation | None:
        number = {
            "temperature": self.take("temperature", _number(least=0)),
            "top_p": self.take("top_p", _number(above=0, most=1)),
            "min_p": self.take("min_p", _number(least=0, most=1)),
            "top_k": self.take("top_k", _whole(least=1)),
            "max_new_tokens": self._max_total_tokens(),
        }
        seed = self.take("seed", _whole(least=-(2**62), most=2**62))
        if self.problems:
            return None
        changes: dict[str, Any] = {k: value for k, value in number.items() if value is not None}
        changes["seed"] = secrets.randbits(62) if seed is None else seed
        if "response_format" in self.given:
            changes["schema"] = ROW
        return replace(defaults, **changes)

    def _max_total_tokens(self) -> int | None:
        older, newer = (
            self.take(key, _whole(least=1)) for key in ("max_tokens", "max_completion_tokens")
        )
        if older is not None and newer is not None and older != newer:
            self.problem("max_tokens", "max_tokens and max_completion_tokens differ: keep one.")
        most: int | None = older if newer is None else newer
        return most


def _messages(_: str, value: Any) -> tuple[Message, ...]:
    unread = Unread()
    renamed = value
    if isinstance(value, list):
        renamed = [
            {**turn, "role": "system"}
            if isinstance(turn, dict) and turn.get("role") == "developer"
            else turn
            for turn in value
        ]
    messages = read_turns(renamed, unread)
    unknown = [f"a message has `{brief(key)}`, which is not read" for key in unread.unknown]
    if problems := [*unread.refused, *unknown]:
        raise RowProblem(*problems)
    if not messages:
        raise RowProblem("messages must hold at least one message")
    return messages


def _format(_: str, value: Any) -> dict[str, Any] | None:
    if value == {"type": "json_object"}:
        return _JSON_OBJECT
    return read_format({"response_format": value})


def _with_format(messages: tuple[Message, ...], wanted: dict[str, Any]) -> tuple[Message, ...]:
    """The last question asks for it, as in a row of data."""
    asked = [place for place, message in enumerate(messages) if message.role == "user"]
    if not asked:
        return messages
    *before, last = messages[: asked[-1] + 1]
    return (*before, replace(last, response_format=wanted), *messages[asked[-1] + 1 :])


def _text(key: str, value: Any) -> str:
    return value if isinstance(value, str) else _refuse(key, "text", value)


def _boolean(key: str, value: Any) -> bool:
    return value if isinstance(value, bool) else _refuse(key, "true or false", value)


def _number(**bounds: float) -> Callable[[str, Any], float]:
    def read(key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse(key, "a number", value)
        try:
            number = float(value)
        except OverflowError:
            raise ConfigError(f"{key}={brief(value)} is out of range.") from None
        require_range(key, value, **bounds)
        return number

    return read


def _whole(**bounds: int) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            _refuse(key, "a whole number", value)
        if not abs(value) < 2**63:
            raise ConfigError(f"{key}={brief(value)} is out of range.")
        require_range(key, value, **bounds)
        return int(value)

    return read


def _stops(key: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        _refuse(key, "a text, or a list of texts that are not empty", value)
    if len(texts) > MOST_STOPS:
        raise ConfigError(f"{key} may hold {MOST_STOPS} texts at most.")
    return tuple(texts)


def _usage(key: str, value: Any) -> bool:
    known = isinstance(value, dict) and value.keys() <= {"include_usage", "include_obfuscation"}
    if not known or not all(isinstance(each, bool) for each in value.values()):
        _refuse(key, '{"include_usage": true}', value)
    return bool(value.get("include_usage"))


def _refuse(key: str, wanted: str, value: Any) -> NoReturn:
    raise ConfigError(f"{key} must be {wanted}, this is {kind_of(value)}.")
