"""Routes of llama.cpp's server on the loopback, and what is taken of their answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, TypeVar

from graftlab.errors import ModelError
from graftlab.files.reading import UnreadableError, load_json
from graftlab.text.template import functions

if TYPE_CHECKING:
    from graftlab.types import Message

Found = TypeVar("Found")
INSTALL = "pip install 'graftlab[gguf]'"
TIMEOUT = 600.0
"""Seconds that an answer may take: one token of a large model on a slow disk."""
LARGEST = 2**28
"""Bytes of an answer: one tells the probabilities of a whole vocabulary."""


class Api:
    """Routes of a llama-server on the loopback."""

    def __init__(self, address: str) -> None:
        self._address = address
        direct = urllib.request.ProxyHandler({})  # it is this machine's own
        self._open = urllib.request.build_opener(direct).open

    def ask(self, route: str, body: dict[str, Any] | None, take: Callable[[Any], Found]) -> Found:
        """What is taken of a route's answer; without a body it is a GET. Raises ModelError."""
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + route, data, kind)
        try:
            with self._open(request, timeout=TIMEOUT) as answer:
                return take(load_json(answer.read(LARGEST)))
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")
            with suppress(UnreadableError):
                told = load_json(told)["error"]["message"]
            said = " ".join(str(told).split())[:300]
            raise ModelError(f"llama.cpp refuses {route}: {said}") from error
        except (OSError, HTTPException) as error:
            raise ModelError(f"llama.cpp gives no answer to {route}: {error}.") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError(
                f"llama.cpp answers {route} in another form than is known: {error!r}. Take the "
                f"wheel: {INSTALL}."
            ) from error

    def tokens(self, text: str, *, special: bool) -> list[int]:
        """Its ids of a text, with BOS where it puts one and `special`."""
        body = {"content": text, "add_special": special, "parse_special": True}
        return self.ask("/tokenize", body, tokens_of)

    def text(self, token: int) -> str:
        """What a token says."""
        return self.ask("/detokenize", {"tokens": [token]}, lambda told: str(told["content"]))

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        """Its ids of a conversation that asks for an answer, by its own template engine."""
        body: dict[str, Any] = {"messages": [_as_client(message) for message in messages]}
        if tools:
            body["tools"] = functions(tools)
        text = self.ask("/apply-template", body, lambda told: str(told["prompt"]))
        return self.tokens(text, special=True)


def _as_client(message: Message) -> dict[str, Any]:
    """A turn as clients of the OpenAI API send it: arguments of calls are JSON in a text."""
    turn = message.as_dict()
    if calls := turn.get("tool_calls"):
        turn["tool_calls"] = [{**call, "function": _in_text(call["function"])} for call in calls]
    return turn


def _in_text(function: dict[str, Any]) -> dict[str, Any]:
    return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


def tokens_of(told: Any) -> list[int]:
    """The ids in an answer."""
    return [int(token) for token in told["tokens"]]
