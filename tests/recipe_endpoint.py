"""A local HTTP server that plays an OpenAI-compatible endpoint, faults and all."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, body: str = "", **headers: str) -> Fault:
    """Answers with a status code; headers as Retry_After="1"."""

    def fault(handler: BaseHTTPRequestHandler) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        _send(handler, code, body.encode(), named)

    return fault


def says(body: str) -> Fault:
    """Answers 200 with `body`, whatever it is."""
    return status(200, body)


def completion(text: Any, finish: str = "stop", usage: tuple[int, int] | None = (100, 50)) -> str:
    reply: dict[str, Any] = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]
    }
    if usage:
        reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return json.dumps(reply)


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Says nothing until the server is closed."""
    server = handler.server
    assert isinstance(server, _Server)
    server.closing.wait(30)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.closing = threading.Event()
        self.desk = Desk(self)


@dataclass
class Desk:
    """What came in, and what is to go wrong next (`faults`, used up from the front)."""

    server: Any
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    paid: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    delay: float = 0.0
    silent_after: int | None = None
    lock: Any = field(default_factory=threading.Lock)
    busy: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"


def _send(handler: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        desk = server.desk
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions"
        with desk.lock:
            desk.requests.append(sent)
            desk.headers.append(dict(self.headers))
            desk.times.append(time.monotonic())
            desk.busy += 1
            desk.most_at_once = max(desk.most_at_once, desk.busy)
            fault = desk.faults.pop(0) if desk.faults else desk.always
        try:
            time.sleep(desk.delay)
            asked = sent["messages"][-1]["content"]
            with desk.lock:
                if desk.silent_after is not None and desk.paid.total() >= desk.silent_after:
                    fault = hang
                elif fault is None:
                    desk.paid[asked] += 1
                if fault is not hang:
                    # Before the answer leaves: whoever has it may ask again at once.
                    desk.busy -= 1
            if fault is not None:
                fault(self)
            else:
                _send(self, 200, completion(f"Plainly: {len(asked)} letters.").encode(), {})
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client went away


@contextmanager
def endpoint() -> Iterator[Desk]:
    """A running server's desk."""
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.desk
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
