"""One request to an OpenAI-compatible endpoint: what is sent, what may come back, when to wait.

200 with an answer                  CachedAnswer
200 with garbage, or no choices     again: it may have been paid for
408 425 429 5xx, no connection      again, after Retry-After or an exponential pause
... that asks for a longer one      RewriterError: nobody waits for hours
400 413 422                         Refused: this text alone cannot be asked
401 403 404, a redirection          RewriterError: no text can
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import re
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from graftlab.files.reading import load_json
from graftlab.recipes.rewriters.answer_cache import CachedAnswer
from graftlab.recipes.rewriters.base import RewriterError
from graftlab.recipes.rewriters.secret import IN_ANSWERS, IN_MESSAGES, KeyNames, hidden

if TYPE_CHECKING:
    from httpx2 import Response

_LONGEST_BODY = 16 * 2**20
_MOST_TOKENS = 10**9
"""No request has so many: what is told of them is wrong, and counts as not told."""
_LONGEST_WAIT = 600.0
"""Seconds that an endpoint may ask to wait."""
_THOUGHT = re.compile(r"^\s*<think>.*?</think>\s*", re.S)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
EMPTY = "an empty answer"
REWRITER = KeyNames("rewriter.url", "rewriter.model", "rewriter.key_env")


@dataclass(frozen=True, slots=True)
class Again:
    """Worth another try."""

    why: str
    after: float | None = None
    """Seconds the endpoint asked to wait, if it did."""
    paid: bool = False
    """The endpoint may have worked, and billed, for nothing that is of use."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Not worth another try for this text."""

    why: str


class Endpoint:
    """`POST url/chat/completions`; the API key lives here and nowhere else."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        timeout: float,
        longest: float = 900.0,
        names: KeyNames = REWRITER,
    ) -> None:
        """`timeout`: seconds without a byte; `longest`: seconds for the whole of a request."""
        self.url, self.timeout = url.rstrip("/") + "/chat/completions", timeout
        self.longest, self._key, self._names = longest, key, names
        self._is_local = urlsplit(url).hostname in _LOOPBACK
        self._tls = ssl.create_default_context()
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells every request

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def ask(self, payload: dict[str, Any]) -> CachedAnswer | Again | Refused:
        """Send one request. Raises RewriterError where every other would fail alike."""
        from httpx2 import ConnectTimeout, HTTPError, TimeoutException

        try:
            response, data = asyncio.run(self._post(payload))
        except TimeoutError:
            return Again(f"no whole answer within {self.longest:g} s", paid=True)
        except ConnectTimeout:
            return Again(f"no connection within {self.timeout:g} s")
        except TimeoutException:
            return Again(f"no answer within {self.timeout:g} s", paid=True)
        except (HTTPError, OSError) as error:
            return Again(f"no connection: {self._safe(str(error))}")
        return self._read(data) if response.status_code == 200 else self._failed(response, data)

    async def _post(self, payload: dict[str, Any]) -> tuple[Response, bytes]:
        """The response and its body; redirections, which could carry the key away, are none."""
        from httpx2 import AsyncClient

        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers["Accept-Encoding"] = "identity"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        body, data = json.dumps(payload).encode(), bytearray()
        # No proxy stands in front of this machine itself.
        client = AsyncClient(timeout=self.timeout, verify=self._tls, trust_env=not self._is_local)
        async with (
            asyncio.timeout(self.longest),
            client,
            client.stream("POST", self.url, content=body, headers=headers) as response,
        ):
            async for part in response.aiter_raw():
                data += part
                if len(data) > _LONGEST_BODY:
                    break
        return response, bytes(data)

    def _failed(self, response: Response, data: bytes) -> Again | Refused:
        said, code = self._safe(data.decode("utf-8", "replace")), response.status_code
        why = f"HTTP {code} {' '.join(said.split())[:300]}".strip()
        if code in (408, 425, 429) or code >= 500:
            after = _retry_after(response.headers.get("Retry-After"))
            if after is not None and after > _LONGEST_WAIT:
                raise RewriterError(
                    f"{self.url} answers {why}, and to come back in {after:,.0f} s: do so, with "
                    "the same command."
                )
            return Again(why, after=after)
        if code in (400, 413, 422):
            return Refused(why)
        raise RewriterError(f"{self.url} answers {why}: {_advice(code, self._names)}")

    def _read(self, data: bytes) -> CachedAnswer | Again:
        try:
            reply = load_json(data)
            choice = reply["choices"][0]
            text = choice["message"].get("content")
            if not isinstance(text, str | None):
                raise TypeError("parts of a content, such as pictures, are no text")
            calls = _calls(choice["message"].get("tool_calls"))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            seen = self._safe(data.decode("utf-8", "replace"))[:120]
            return Again(f"an answer that is no chat completion: {seen!r}", paid=True)
        text = _THOUGHT.sub("", text or "").strip()
        text = "\n".join(filter(None, [text, *calls]))
        if not text:
            return Again(EMPTY, paid=True)
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        tokens = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        return CachedAnswer(hidden(text, self._key, IN_ANSWERS), finish, tokens)

    def _safe(self, said: str) -> str:
        """What an endpoint said, which may quote the key."""
        return hidden(said, self._key, IN_MESSAGES)


def _calls(calls: Any) -> list[str]:
    """Each call of a tool as a line of JSON. Raises KeyError, TypeError or ValueError."""
    found = []
    for call in calls or ():
        name, given = call["function"]["name"], call["function"]["arguments"]
        arguments = load_json(given) if isinstance(given, str) else given
        found.append(json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False))
    return found


def _count(value: Any) -> int:
    number = isinstance(value, int) and not isinstance(value, bool)
    return value if number and 0 < value < _MOST_TOKENS else 0


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or a date; None where neither is readable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None


def _advice(code: int, names: KeyNames) -> str:
    if code in (401, 403):
        return (
            f"set the variable named by {names.key_env} to a key that is valid there "
            "(OPENAI_API_KEY is sent to https hosts alone)."
        )
    if code == 404:
        return f"check {names.url} (it ends before /chat/completions) and {names.model}."
    return f"check {names.url}."
