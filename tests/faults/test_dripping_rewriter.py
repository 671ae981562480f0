"""A rewriter whose answer drips: every byte comes in time, and the whole never does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from graftlab.recipes.rewriters.endpoint import Again, Endpoint

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n"


@pytest.fixture(params=["head", "body"])
def dripping(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that sends a byte at a time until it is hung up on."""
    hung_up = threading.Event()
    begin, drip = (b"", b"X-Header: ") if request.param == "head" else (HEAD, b" ")
    begin = b"HTTP/1.1 200 OK\r\n" if request.param == "head" else begin

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            try:
                connection.sendall(begin)
                while not hung_up.wait(0.01):
                    connection.sendall(drip[:1])
            except OSError:
                hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread.join(60)
        assert hung_up.is_set(), "nobody ended the request"


def test_a_request_ends_by_a_limit_on_the_whole(dripping: str) -> None:
    endpoint = Endpoint(dripping, key=None, timeout=60, longest=0.3)
    found = endpoint.ask({"messages": []})
    assert found == Again("no whole answer within 0.3 s", paid=True)
