"""Whoever read the output is gone: work goes on, its log is whole; what is asked to be read ends.

The reader closes its end while the task waits for a word, so that nothing depends on who is first.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from commands import command, python

TALKS = """
say("first line")
sys.stdin.readline()
for number in range(2000):
    say(f"line {number} [bold] of many")
warnings.warn("a warning")
print("a word on stderr", file=sys.stderr, flush=True)
print("a word of a library", flush=True)
import logging
logging.getLogger("graftlab").warning("a line of a logger")
import rich.table
table = rich.table.Table("heading")
table.add_row("cell")
console().print(table)
import os
os.write(1, b"of a C library")
open("done", "w").write("done")
"""
TRAIN = ("train", "hydra.run.dir=run", "logger=none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    (tmp_path / "rows.jsonl").write_text(json.dumps(turns) + "\n", encoding="utf-8")
    return tmp_path


def is_whole(log: str) -> bool:
    wanted = ["first line", *(f"line {n} [bold] of many" for n in range(2000))]
    said = log.splitlines()
    assert [line for line in said if line.startswith(("line", "first"))] == wanted
    assert "UserWarning: a warning" in log
    assert "a word on stderr\n" in log
    assert "graftlab: a line of a logger" in log
    assert "cell" in log
    return True


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_training_goes_on_when_its_reader_is_gone(folder: Path, both: bool) -> None:
    more = {"stderr": subprocess.STDOUT} if both else {}
    with command(*TRAIN, body=TALKS, folder=folder, **more) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"first line\n"
        process.stdout.close()
        process.stdin.write(b"go\n")
        process.stdin.close()
        errors = process.stderr.read().decode() if process.stderr else ""
        assert process.wait(60) == 0, errors
        assert (folder / "done").exists()
        assert is_whole((folder / "run" / "train.log").read_text())
        assert "Traceback" not in errors


def test_training_goes_on_when_its_terminal_is_closed(folder: Path) -> None:
    ours, theirs = pty.openpty()
    body = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{TALKS}"
    streams = {"stdout": theirs, "stderr": theirs}
    with command(*TRAIN, body=body, folder=folder, **streams) as process:
        os.close(theirs)
        seen = b""
        while b"first line" not in seen:
            seen += os.read(ours, 1024)
        os.close(ours)  # from here on its writes fail with EIO
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
        assert process.wait(60) == 0
        assert is_whole((folder / "run" / "train.log").read_text())


def test_a_message_is_in_the_log_whoever_reads(folder: Path) -> None:
    (folder / "run").mkdir()  # one that the run makes goes with a refusal
    body = "from graftlab.errors import DataError\nraise DataError('rows.jsonl:7: not a row')"
    with command(*TRAIN, body=body, folder=folder) as process:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert b"rows.jsonl:7: not a row" in errors
        assert "rows.jsonl:7: not a row" in (folder / "run" / "train.log").read_text()


def test_streams_that_were_closed_before_are_given_to_no_file(folder: Path) -> None:
    program = (
        "import os, sys; os.close(0); os.close(1); os.close(2);"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, '-c', sys.argv[1]])"
    )
    inner = (
        "import sys; from graftlab.cli.main import main; import graftlab.verbs.train as task\n"
        "def run(spec):\n"
        "    from graftlab.console import say\n"
        "    say('hello'); number = open('file', 'w').fileno(); open('number', 'w').write("
        "str(number))\n"
        "task.run = run\n"
        f"sys.exit(main({list(TRAIN)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", program, inner], cwd=folder).returncode == 0
    assert int((folder / "number").read_text()) > 2
    assert (folder / "run" / "train.log").read_text() == "hello\n"


@pytest.mark.parametrize("verb", ["plan", "help"])
def test_what_is_asked_to_be_read_ends_with_141(folder: Path, verb: str) -> None:
    task = "say('first line')\nsys.stdin.readline()\nfor n in range(9000): say(f'line {n}')"
    program = (
        "import sys; from graftlab.cli.main import main; print('first line', flush=True);"
        "sys.stdin.readline(); sys.exit(main(['train', '--help']))"
    )
    asked = (
        python(program, folder=folder)
        if verb == "help"
        else command("plan", "machine=cpu", body=task, folder=folder)
    )
    with asked as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"first line\n"
        process.stdout.close()
        process.stdin.write(b"go\n")
        process.stdin.close()
        errors = process.stderr.read()
        assert process.wait(60) == 141, errors
        assert b"Traceback" not in errors


def test_a_progress_bar_is_not_copied_to_the_log(tmp_path: Path) -> None:
    from io import StringIO

    from graftlab import terminal
    from graftlab.console import _kind

    log = StringIO()
    screen = _kind()(file=StringIO(), force_terminal=True, width=80)
    from rich.progress import Progress

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "_log", log)
        with Progress(console=screen) as bar:
            bar.add_task("work", total=3)
            screen.print("a line beside it")
    assert log.getvalue().strip() == "a line beside it"
    assert "work" in screen.file.getvalue()
