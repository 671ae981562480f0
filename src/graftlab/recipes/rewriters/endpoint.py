"""One request to an OpenAI-compatible endpoint: what is sent, what may come back, when to wait.

200 with an answer                  CachedAnswer
200 with garbage, or no choices     again: it may have been paid for
408 425 429 5xx, no connection      again, after Retry-After or an exponential pause
400 413 422                         Refused: this text alone cannot be asked
401 403 404, a redirection          RewriterError: no text can
"""

from __future__ import annotations

import email.utils
import http.client
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from graftlab.files.reading import load_json
from graftlab.recipes.rewriters.answer_cache import CachedAnswer
from graftlab.recipes.rewriters.base import RewriterError

_LONGEST_BODY = 16 * 2**20
_LONGEST_WAIT = 600.0
_THOUGHT = re.compile(r"^\s*<think>.*?</think>\s*", re.S)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
        self, url: str, *, key: str | None, timeout: float, longest: float = 900.0
    ) -> None:
        """`timeout`: seconds without a byte; `longest`: seconds for the whole of a request."""
        self.url, self.timeout = url.rstrip("/") + "/chat/completions", timeout
        self.longest, self._key = longest, key
        # Redirections would carry the key to another host.
        handlers: list[Any] = [_NoRedirection(), _Http(), _Https()]
        if urllib.parse.urlsplit(url).hostname in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def ask(self, payload: dict[str, Any]) -> CachedAnswer | Again | Refused:
        """Send one request. Raises RewriterError where every other would fail alike."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        body = json.dumps(payload).encode()
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        limit = _Limit(self.longest)
        try:
            with limit, self._opener.open(request, timeout=self.timeout) as response:
                data = response.read(_LONGEST_BODY)
        except urllib.error.HTTPError as error:
            with error:
                return self._failed(error)
        except TimeoutError:
            return Again(f"no answer within {self.timeout:g} s", paid=True)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if limit.passed:
                return Again(f"no whole answer within {self.longest:g} s", paid=True)
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                return Again(f"no connection within {self.timeout:g} s")
            return Again(f"no connection: {self._safe(str(reason))}")
        if limit.passed:
            return Again(f"no whole answer within {self.longest:g} s", paid=True)
        return self._read(data)

    def _failed(self, error: urllib.error.HTTPError) -> Again | Refused:
        try:
            said = error.read(2000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        why = f"HTTP {error.code} {self._safe(' '.join(said.split()))[:300]}".strip()
        if error.code in (408, 425, 429) or error.code >= 500:
            return Again(why, after=_retry_after(error.headers.get("Retry-After")))
        if error.code in (400, 413, 422):
            return Refused(why)
        raise RewriterError(f"{self.url} answers {why}: {_advice(error.code)}")

    def _read(self, data: bytes) -> CachedAnswer | Again:
        try:
            reply = load_json(data)
            choice = reply["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            seen = self._safe(data[:120].decode("utf-8", "replace"))
            return Again(f"an answer that is no chat completion: {seen!r}", paid=True)
        text = _THOUGHT.sub("", text).strip() if isinstance(text, str) else ""
        if not text:
            return Again("an empty answer", paid=True)
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        tokens = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
        return CachedAnswer(text, str(choice.get("finish_reason") or "stop"), tokens)

    def _safe(self, said: str) -> str:
        """What an endpoint said, which may quote the key."""
        return said.replace(self._key, "***") if self._key else said


class _Limit:
    """Ends a request after `seconds`, though bytes drip in: its socket is shut down.

    A timeout of the socket begins anew with every byte, of the headers as of the body.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        _limit.set(self)
        self._timer.start()

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        _limit.set(None)

    def watch(self, connected: socket.socket) -> None:
        """The connection that is to be ended; at once where the time has passed meanwhile."""
        self._socket = connected
        if self.passed:
            self._end()

    def _end(self) -> None:
        self.passed = True
        if self._socket is not None:
            with suppress(OSError):  # gone already
                # Of the socket itself: the one over TLS would first say goodbye.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


def _watched(connection: http.client.HTTPConnection) -> None:
    if (limit := _limit.get()) is not None:
        limit.watch(connection.sock)


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _watched(self)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _watched(self)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


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
    return min(max(seconds, 0.0), _LONGEST_WAIT) if seconds == seconds else None


def _advice(code: int) -> str:
    if code in (401, 403):
        return (
            "set the variable named by rewriter.key_env to a key that is valid there "
            "(OPENAI_API_KEY is sent to https hosts alone)."
        )
    if code == 404:
        return "check rewriter.url (it ends before /chat/completions) and .model."
    return "check rewriter.url."
