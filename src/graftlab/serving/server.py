"""The socket and the server around the application, and how both end."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from graftlab.errors import ConfigError, Interrupted
from graftlab.process import signals_to

if TYPE_CHECKING:
    from graftlab.serving.app import Service

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
GRACE = 5
"""Seconds that a reply has for its end when the server is stopped."""
SHORTEST_KEY = 16


def read_key(host: str, key_env: str | None) -> str | None:
    """The key that requests must bring; None where the server is on loopback and none is wanted.

    The message never holds what was given: it may be the key itself. Raises ConfigError.
    """
    if key_env is None:
        if is_loopback(host):
            return None
        raise ConfigError(
            f"host={host} can be reached from other machines: put a key into an environment "
            "variable and name that one, as in key_env=GRAFTLAB_KEY."
        )
    key = os.environ.get(key_env, "")
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable():
        raise ConfigError(
            "key_env must name an environment variable that holds the key, "
            f"{SHORTEST_KEY} ASCII characters or more; there is none of this name. "
            "The key itself is not for a command line."
        )
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket bound there; `port` 0 is any free one. Raises ConfigError."""
    try:
        ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # a name that cannot be one in the DNS
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"host={host} is no address here: {reason}.") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"host={host} port={port} cannot be listened at: {error.strerror}. Give another port."
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    """Where clients find the API."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


class Server(uvicorn.Server):
    """uvicorn's, which gives up replies that are being made when it is stopped."""

    def __init__(self, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                service.application(),
                lifespan="off",
                loop="asyncio",
                http="h11",
                ws="none",
                log_config=None,
                log_level="critical",  # a traceback may quote a prompt; app.py tells of crashes
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self.stopped_by: int | None = None
        self._close: Callable[[], None] = service.engine.close

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """A signal stops the server; uvicorn would raise it again, which counts as a second one."""

        def stop(number: int, _: FrameType | None) -> None:
            self.stopped_by, self.should_exit = number, True

        with signals_to(stop):
            yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._close()
        await super().shutdown(sockets)


def serve(service: Service, bound: socket.socket) -> None:
    """Answer until a signal comes. Raises Interrupted then."""
    service.engine.start()
    server = Server(service)
    server.run(sockets=[bound])
    if server.stopped_by is not None:
        name = signal.Signals(server.stopped_by).name
        raise Interrupted(f"stopped by {name}.", 128 + server.stopped_by)
