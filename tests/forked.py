"""Command lines in a new process that need not import the heavy libraries once more.

Importing PyTorch, Lightning and transformers takes a process four seconds. A server has done so,
and each call runs in a fork of it: it finds what no test has changed, and changes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

HEAVY = ("torch", "lightning.pytorch", "transformers", "peft")


@dataclass(frozen=True)
class Answered:
    """What a process left."""

    codes: list[int]
    """The exit code of each command line."""
    stdout: str
    stderr: str


def answered(lines: Sequence[Sequence[str]], *, folder: Path) -> Answered:
    """What one new process in `folder` answers to command lines of graftlab, in turn."""
    server = _server()
    ours, theirs = server.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as kept, ours:
        streams = Path(kept, "stdout"), Path(kept, "stderr")
        process = server.Process(
            target=_answer, args=(lines, folder, streams, dict(os.environ), theirs)
        )
        process.start()
        theirs.close()
        codes: list[int] = []
        with suppress(EOFError):
            while True:
                codes.append(ours.recv())
        process.join()
        stdout, stderr = (file.read_text(encoding="utf-8") for file in streams)
    assert len(codes) == len(lines), stderr
    return Answered(codes, stdout, stderr)


@cache
def _server() -> ForkServerContext:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([*HEAVY])
    return server


def _answer(
    lines: Sequence[Sequence[str]],
    folder: Path,
    streams: tuple[Path, Path],
    environment: dict[str, str],
    codes: Connection,
) -> None:
    for number, file in enumerate(streams, 1):
        with file.open("wb") as stream:
            os.dup2(stream.fileno(), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)

    from graftlab.cli.main import main

    for line in lines:
        codes.send(main(list(line)))
