"""A server on loopback that speaks enough of W&B: GraphQL, file stream, uploads; and its faults."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "k" * 40


class WandbServer(ThreadingHTTPServer):
    """What was sent to it; `fault` is looked at for every request."""

    daemon_threads = True

    def __init__(self, fault: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault, self.released = fault, threading.Event()
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[int, dict[str, Any]] = {}
        self.uploads: list[str] = []
        self.exit_code: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        if self.server.fault == "never answers":
            self.server.released.wait(60)
        if self.path == "/graphql":
            self._graphql(json.loads(body))
        elif self.path.endswith("/file_stream"):
            self._stream(json.loads(body))
        else:
            self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self.server.uploads.append(self.path.rpartition("/")[2])
        self._reply({})

    def _graphql(self, asked: dict[str, Any]) -> None:
        query, variables = asked["query"], asked.get("variables") or {}
        if self.server.fault == "refuses the key":
            self._reply({"errors": [{"message": "permission denied"}]}, code=401)
        elif "viewer" in query and "upsertBucket" not in query:
            known = self.server.fault != "knows no such user"
            self._reply({"data": {"viewer": {"id": "1"} if known else None}})
        elif self.server.fault == "opens no run":
            self._reply({"errors": [{"message": "quota exceeded"}]}, code=403)
        elif "upsertBucket" in query:
            name = variables.get("name") or "run"
            self.server.runs.setdefault(name, {}).update(
                {key: value for key, value in variables.items() if value is not None}
            )
            project = {"id": "p", "name": "graftlab", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": name, "displayName": "n", "config": "{}"}
            bucket |= {"historyLineCount": 0, "project": project}
            self._reply({"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}})
        elif "createRunFiles" in query:
            files = [
                {"name": n, "uploadUrl": f"{self.server.url}/to/{n}"} for n in variables["files"]
            ]
            made = {"runID": "b", "uploadHeaders": [], "files": files}
            self._reply({"data": {"createRunFiles": made}})
        else:
            self._reply({"data": {}})

    def _stream(self, sent: dict[str, Any]) -> None:
        if self.server.fault == "stops answering":
            self.server.released.wait(60)
        if self.server.fault == "is full":
            self._reply({"error": "storage quota exceeded"}, code=402)
            return
        files = sent.get("files") or {}
        for line in (files.get("wandb-history.jsonl") or {}).get("content", []):
            row = json.loads(line)
            self.server.history.setdefault(int(row["_step"]), {}).update(row)
        if sent.get("complete"):
            self.server.exit_code = sent.get("exitcode")
        self._reply({})

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _reply(self, value: Any, *, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def wandb_server(fault: str = "") -> Iterator[WandbServer]:
    """The server, answering until the block ends."""
    server = WandbServer(fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
