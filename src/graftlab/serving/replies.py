"""What is answered, in OpenAI's JSON."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from graftlab.serving.jobs import Ended, Piece
from graftlab.serving.requests import RequestError

END_OF_STREAM = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Completion:
    """The reply to one request, filled as its events come."""

    model: str
    num_prompt: int
    num_choices: int
    ident: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    texts: dict[int, str] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)

    def take(self, event: Piece | Ended) -> None:
        if isinstance(event, Piece):
            self.texts[event.index] = self.texts.get(event.index, "") + event.text
        else:
            self.ended[event.index] = event

    @property
    def whole(self) -> bool:
        return len(self.ended) == self.num_choices

    @property
    def usage(self) -> dict[str, int]:
        """Tokens; the prompt counts once, however many choices it has."""
        replies = sum(end.num_tokens for end in self.ended.values())
        return {
            "prompt_tokens": self.num_prompt,
            "completion_tokens": replies,
            "total_tokens": self.num_prompt + replies,
        }

    def as_json(self) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": self.texts.get(index, "")},
                "logprobs": None,
                "finish_reason": end.reason,
            }
            for index, end in sorted(self.ended.items())
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage}

    def first_chunks(self) -> Iterable[bytes]:
        """Whose turn it is, for each choice."""
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(index, delta) for index in range(self.num_choices)]

    def chunk(self, event: Piece | Ended) -> bytes:
        """An event as a line of the stream."""
        if isinstance(event, Piece):
            return self._chunk(event.index, {"content": event.text})
        return self._chunk(event.index, {}, event.reason)

    def usage_chunk(self) -> bytes:
        head = self._head("chat.completion.chunk")
        return as_event({**head, "choices": [], "usage": self.usage})

    def _chunk(self, index: int, delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return as_event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.ident, "object": kind, "created": self.created, "model": self.model}


def as_event(value: Any) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(value)}\n\n".encode()


def error_json(error: RequestError) -> dict[str, Any]:
    """The error object that OpenAI's clients read."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    told = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    return {"error": told}


def model_json(name: str, created: int) -> dict[str, Any]:
    """A line of GET /v1/models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "graftlab"}
