"""Programs in a new process that need not import the heavy libraries once more.

Importing PyTorch, Lightning and transformers takes a process four seconds. A server has done so,
and each program runs in a fork of it: it finds what no test has changed, and changes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

HEAVY = ("torch", "lightning.pytorch", "transformers", "peft")
"""Nothing of graftlab, which a program may take from elsewhere."""


def python(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `python -c PROGRAM ARGUMENTS` in `folder` ends with; it has nothing to read."""
    with tempfile.TemporaryDirectory() as kept:
        streams = Path(kept, "stdout"), Path(kept, "stderr")
        given = (program, arguments, folder, dict(os.environ), streams)
        process = _server().Process(target=_run, args=given)
        process.start()
        process.join()
        out, err = (file.read_text(encoding="utf-8") for file in streams)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(["-c", *arguments], process.exitcode, out, err)


@cache
def _server() -> ForkServerContext:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([*HEAVY])
    return server


def _run(
    program: str,
    arguments: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    streams: tuple[Path, Path],
) -> None:
    for number, file in enumerate((Path(os.devnull), *streams)):
        with file.open("wb" if number else "rb") as stream:
            os.dup2(stream.fileno(), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    sys.path.insert(0, "")
    try:
        exec(program, {"__name__": "__main__"})
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
