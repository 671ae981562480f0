"""Commands in a process of their own, whose task is a few lines of a test's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BEGIN = """
import os, signal, sys, threading, warnings
import graftlab.verbs.{verb} as task
from graftlab.cli.main import main
from graftlab.console import console, say

def run(spec, **more):
{body}

task.run = run
sys.exit(main({arguments!r}))
"""


@contextmanager
def command(
    *arguments: str, body: str, folder: Path, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """`graftlab ARGUMENTS` in `folder`, where the verb's task is `body`; its streams are pipes."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    with python(
        BEGIN.format(verb=arguments[0], body=lines, arguments=list(arguments)),
        folder=folder,
        **more,
    ) as process:
        yield process


@contextmanager
def python(program: str, *, folder: Path, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program; what is left of it at the end of the block is killed.

    It hears Ctrl-C also where the tests were started in the background, which ignores it.
    """
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    streams["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, env=dict(os.environ), **{**streams, **more}
    ) as process:
        try:
            yield process
        finally:
            process.kill()
