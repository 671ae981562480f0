"""Routes of the endpoint, its key and its limits. Nothing of a prompt or a reply is logged."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from graftlab.console import say
from graftlab.errors import did_you_mean
from graftlab.files.reading import UnreadableError, load_json
from graftlab.serving.jobs import Ended, Event, Failed, Job, Piece, make_job
from graftlab.serving.replies import (
    END_OF_STREAM,
    Completion,
    as_event,
    error_json,
    model_json,
)
from graftlab.serving.requests import ChatRequest, RequestError, read_request

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from graftlab.generation.sampling import Generation
    from graftlab.serving.engine import Engine
    from graftlab.serving.models import ServedModel

LARGEST_BODY = 4 * 2**20
"""Bytes of a request."""
BODY_SECONDS = 30.0
"""For a request to come in."""
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/\\\[\]]+)(?::\d+)?")

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Service:
    """What answers behind the routes."""

    engine: Engine
    models: Mapping[str, ServedModel]
    defaults: Generation
    key: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = None
    """Names by which this server may be called; None for any. A page of the web that got its own
    name to point here is turned away by it."""
    created: int = field(default_factory=lambda: int(time.time()))
    preparing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    """One thread renders prompts and compiles schemas, so that connections do not wait for it."""

    def application(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/models", self._guarded(self.list_models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._guarded(self.show_model), methods=["GET"]),
            Route("/v1/chat/completions", self._guarded(self.complete), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _unknown_route})

    async def list_models(self, _: Request) -> Response:
        """GET /v1/models."""
        data = [model_json(name, self.created) for name in self.models]
        return _json({"object": "list", "data": data})

    async def show_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        model = self._model(request.path_params["name"])
        return _json(model_json(model.name, self.created))

    async def complete(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await _body(request)
        asked = read_request(body, self.defaults, most_choices=self.engine.batch)
        model = self._model(asked.model)
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever listened
                loop.call_soon_threadsafe(events.put_nowait, event)

        job = await loop.run_in_executor(
            self.preparing, make_job, asked, model, self.engine.base, tell
        )
        self.engine.submit(job)
        completion = Completion(model.name, job.num_prompt, asked.num_choices)
        told = _told(request, job, events, completion)
        if asked.stream:
            return _EventStream(_lines(told, completion, asked))
        async for _ in told:
            pass
        return _json(completion.as_json())

    def _model(self, name: str) -> ServedModel:
        if name not in self.models:
            hint = did_you_mean(name, self.models)
            raise RequestError(
                f"there is no model of this name: GET /v1/models lists them.{hint}",
                status=404,
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """`endpoint` for those who may ask, with every error as JSON."""

        async def answer(request: Request) -> Response:
            try:
                self._admit(request)
                return await endpoint(request)
            except RequestError as error:
                return _json(error_json(error), error.status)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it
            except Exception as error:
                return _json(error_json(_failure(error)), 500)

        return answer

    def _admit(self, request: Request) -> None:
        if self.hosts is not None and _called(request) not in self.hosts:
            raise RequestError("this server is asked under the name localhost alone.")
        if self.key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self.key.encode())
        if scheme.lower() != "bearer" or not same:
            raise RequestError(
                "the API key is missing or wrong: send it as `Authorization: Bearer KEY`.",
                status=401,
                code="invalid_api_key",
            )


def _called(request: Request) -> str:
    """The name by which the server was asked; '' for one that is none, where Starlette's
    `url.hostname` would be the address of this machine.
    """
    name = HOST.fullmatch(request.headers.get("host", ""))
    return name[1].strip("[]").lower() if name else ""


async def _body(request: Request) -> Any:
    """The JSON of a request. Raises RequestError for one that is too large, too slow or no JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError("send the request with `Content-Type: application/json`.")
    too_large = RequestError(
        f"the request is larger than {LARGEST_BODY >> 20} MiB.", status=413, code="too_large"
    )
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > LARGEST_BODY:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > LARGEST_BODY:
                    raise too_large
    except TimeoutError as error:
        raise RequestError("the request did not come in whole.", status=408) from error
    try:
        return load_json(bytes(data))
    except UnreadableError as error:
        raise RequestError(f"the request {error}.") from error


async def _told(
    request: Request, job: Job, events: asyncio.Queue[Event], completion: Completion
) -> AsyncIterator[Piece | Ended]:
    """Every event up to the last one, noted in `completion`; the job is given up with the caller.

    Raises what the job failed with, and ClientDisconnect.
    """
    start = time.perf_counter()
    gone = asyncio.create_task(_until_gone(request))
    try:
        while not completion.whole:
            event = await _next_event(events, gone)
            if isinstance(event, Failed):
                raise event.error
            completion.take(event)
            yield event
        usage, seconds = completion.usage, time.perf_counter() - start
        reasons = ", ".join(sorted({end.reason for end in completion.ended.values()}))
        say(
            f"{completion.model}: {usage['prompt_tokens']} + {usage['completion_tokens']} tokens, "
            f"{seconds:.2f} s, {reasons}"
        )
    finally:
        job.cancel()
        gone.cancel()


async def _next_event(events: asyncio.Queue[Event], gone: asyncio.Task[None]) -> Event:
    waiting = asyncio.create_task(events.get())
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        return waiting.result()
    finally:
        waiting.cancel()


async def _until_gone(request: Request) -> None:
    """Ends when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _lines(
    told: AsyncIterator[Piece | Ended], completion: Completion, asked: ChatRequest
) -> AsyncIterator[bytes]:
    """A reply as server-sent events; a failure in its middle is one, too."""
    for line in completion.first_chunks():
        yield line
    try:
        async for event in told:
            yield completion.chunk(event)
    except ClientDisconnect:
        return
    except RequestError as error:
        yield as_event(error_json(error))
    except Exception as error:
        yield as_event(error_json(_failure(error)))
    else:
        if asked.with_usage:
            yield completion.usage_chunk()
        yield END_OF_STREAM


class _EventStream(Response):
    """Sends lines as they come, and closes their source when it is left."""

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        async for line in self._lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")


async def _unknown_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    told = RequestError(f"{method} {path} is not served here.", status=error.status_code)
    return _json(error_json(told), error.status_code)


def _failure(error: Exception) -> RequestError:
    """What is told of a crash. Its own message may quote the prompt, so it is shown to nobody."""
    say(f"! a request failed: {type(error).__name__}")
    say("".join(traceback.format_tb(error.__traceback__)).rstrip())
    return RequestError(f"the server failed: {type(error).__name__}.", status=500)
