"""llama-server on the PATH as a process of its own, where the wheel of xllamacpp is missing."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from shutil import which

from graftlab.errors import ModelError
from graftlab.exports.programs import Program, running

PROGRAM = "llama-server"
STARTING = 600.0
"""Seconds that it may take to load a large model from a slow disk."""


@contextmanager
def serving(
    file: Path, lora: Path | None, template: Path | None, *, context: int, threads: int
) -> Iterator[str]:
    """The address of a server with a GGUF file. Raises ModelError where it does not start."""
    program, port = which(PROGRAM), _free_port()
    assert program is not None, "its caller looks"
    words = [program, "--model", str(file), "--host", "127.0.0.1", "--port", str(port)]
    words += ["--ctx-size", str(context), "--parallel", "1", "--threads", str(threads)]
    words += ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    words += ["--swa-full", "--cache-ram", "0", "--no-warmup", "--jinja"]
    words += [] if lora is None else ["--lora", str(lora)]
    words += [] if template is None else ["--chat-template-file", str(template)]
    address = f"http://127.0.0.1:{port}"
    with running(words) as server:
        _wait(server, address, file.name)
        try:
            yield address
        except ModelError as error:
            if server.ended:
                raise ModelError(f"{error} {PROGRAM} has ended {server.told()}") from error
            raise


def _wait(server: Program, address: str, name: str) -> None:
    """Until it answers. Raises ModelError where it ends before, or never does."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    until = time.monotonic() + STARTING
    while not server.ended and time.monotonic() < until:
        try:
            with direct(f"{address}/health", timeout=1):
                return
        except (OSError, HTTPException):  # not there yet, or still loading
            time.sleep(0.1)
    server.end()
    raise ModelError(f"{PROGRAM} does not load {name} {server.told()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
