"""llama-server on the PATH as a process of its own, where the wheel of xllamacpp is missing."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from tempfile import TemporaryFile
from typing import IO

from graftlab.errors import ModelError

PROGRAM = "llama-server"
STARTING = 600.0
"""Seconds that it may take to load a large model from a slow disk."""
ENDING = 10.0
"""Seconds that it may take to end before it is killed."""


@contextmanager
def serving(file: Path, lora: Path | None, *, context: int, threads: int) -> Iterator[str]:
    """The address of a server with a GGUF file. Raises ModelError where it does not start."""
    program, port = which(PROGRAM), _free_port()
    assert program is not None, "its caller looks"
    words = [program, "--model", str(file), "--host", "127.0.0.1", "--port", str(port)]
    words += ["--ctx-size", str(context), "--parallel", "1", "--threads", str(threads)]
    words += ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    words += ["--swa-full", "--cache-ram", "0", "--no-warmup", "--jinja"]
    words += [] if lora is None else ["--lora", str(lora)]
    address = f"http://127.0.0.1:{port}"
    with TemporaryFile() as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, address, log, file.name)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(ENDING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], address: str, log: IO[bytes], name: str) -> None:
    """Until it answers. Raises ModelError where it ends before, or never does."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    until = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < until:
        try:
            with direct(f"{address}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):  # not there yet, or still loading
            time.sleep(0.1)
    log.seek(0)
    said = log.read().decode(errors="replace").splitlines()[-3:]
    why = f"exit code {process.returncode}" if process.poll() is not None else "no answer"
    raise ModelError(f"{PROGRAM} does not load {name} ({why}): {' '.join(said)[-300:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
