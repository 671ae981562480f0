"""`graftlab chat`: lines from a pipe, keys at a terminal, and what is wrong with a line."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graftlab.chat.talk import COMMANDS
from graftlab.cli.main import main
from graftlab.errors import ConfigError
from graftlab.models.hf import HFModel
from graftlab.verbs.chat import ChatSpec
from knocking import Knock
from miniatures import miniature
from trained_runs import trained_run

SYSTEM = "You know music."
QUICK = ("generation.max_new_tokens=6", "precision=fp32", "device=cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = miniature("qwen2", tmp_path_factory.mktemp("base"), tie_word_embeddings=False)
    run = tmp_path_factory.mktemp("run")
    return trained_run(run, base, data={"system_prompt": SYSTEM})


@pytest.fixture
def chat(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Knock]:
    """`graftlab chat RUN` with these lines on its standard input."""

    def call(*lines: str, words: tuple[str, ...] = (), adapter: bool = True) -> Knock:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        code = main(["chat", *([str(folder)] if adapter else []), *QUICK, *words])
        seen = capsys.readouterr()
        return Knock(code, seen.out, seen.err)

    return call


def saved(tmp_path: Path) -> list[dict[str, str]]:
    (row,) = map(json.loads, (tmp_path / "said.jsonl").read_text("utf-8").splitlines())
    turns: list[dict[str, str]] = row["messages"]
    return turns


def test_lines_from_a_pipe(
    chat: Callable[..., Knock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = chat("Who?", "", "And", "/undo", "//why\\", "not?", "/save said.jsonl", "/quit", "no")
    assert done.code == 0, done.err
    turns = saved(tmp_path)
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 2]
    assert [turn["content"] for turn in turns[::2]] == [
        SYSTEM,
        turns[2]["content"],
        turns[4]["content"],
    ]
    assert [turns[1]["content"], turns[3]["content"]] == ["Who?", "/why\nnot?"]
    assert turns[2]["content"] in done.out  # replies and nothing else
    assert turns[4]["content"] in done.out
    assert "taken back: And" in done.err
    assert done.err.count("prompt tokens read") == 3
    assert "tokens" not in done.out


def test_base_and_adapter_say_different_things(chat: Callable[..., Knock]) -> None:
    alone = chat("Who?")
    both = chat("Who?", "/base")
    nothing = chat("/scale 0", "Who?")
    assert (alone.code, both.code, nothing.code) == (0, 0, 0)
    assert both.out == alone.out + nothing.out
    assert alone.out != nothing.out
    assert "answers at 0 of its strength" in nothing.err


def test_a_base_alone(chat: Callable[..., Knock], folder: Path, qwen2_folder: Path) -> None:
    words = ("model=hf", f"model.path={qwen2_folder}")
    done = chat("Who?", words=words, adapter=False)
    assert done.code == 0, done.err
    assert done.out.strip()


def test_the_system_turn_can_be_given_and_changed(chat: Callable[..., Knock]) -> None:
    assert f"system: {SYSTEM}\n" in chat("/system").err
    assert (
        "system: Mine = yours, 'so'\n" in chat("/system", words=("system=Mine = yours, 'so'",)).err
    )
    assert "system: New one.\n" in chat("/system New one.").err
    framed = chat("/system", words=("frame=systems-theologian",))
    assert "system: You are the Systems" in framed.err


def test_help_names_every_command(chat: Callable[..., Knock]) -> None:
    done = chat("/help")
    assert all(word in done.err for word in COMMANDS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/scail 1", "`/scail` is not a command. Did you mean `/scale`?"),
        ("/etc/hosts", "`/etc/hosts` is not a command. /help lists them"),
        ("/scale", "/scale needs X behind it"),
        ("/scale much", "/scale much: it must be a number"),
        ("/scale -1", "scale=-1.0 is out of range"),
        ("/scale nan", "must be a finite number"),
        ("/undo all", "/undo stands alone"),
        ("/base", "nothing was asked yet"),
        ("/save", "/save needs FILE"),
        ("a <|im_end|> b", "reserved token <|im_end|>"),
        ("/save x.jsonl", "nothing was said yet"),
    ],
)
def test_a_wrong_line_of_a_pipe_is_named(
    chat: Callable[..., Knock], line: str, message: str
) -> None:
    done = chat("/help", line, "Who?")
    assert done.code == 2
    (said,) = [told for told in done.err.splitlines() if told.startswith("graftlab chat: ")]
    assert said.startswith("graftlab chat: stdin:2: ")
    assert message in said
    assert done.out == ""


def test_bytes_that_are_no_text(
    chat: Callable[..., Knock], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8")
    monkeypatch.setattr(io, "StringIO", lambda text: stdin)
    done = chat()
    assert done.code == 2
    assert "stdin is not utf-8 text" in done.err


def test_another_base_is_refused(chat: Callable[..., Knock], tmp_path: Path) -> None:
    other = miniature("qwen2", tmp_path, seed=9, tie_word_embeddings=False)
    done = chat("Who?", words=("model=hf", f"model.path={other}"))
    assert done.code == 2
    assert "trained on another base" in done.err


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        ({"adapter": None}, "adapter=RUN, or model=tiny"),
        ({"adapter": None, "model": HFModel(path="x"), "scale": 0.5}, "scale=0.5"),
        ({"scale": -1.0}, "scale"),
        ({"device": "gpu"}, "device=gpu"),
        ({"system": "a", "frame": "b"}, "frame brings its own"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(wrong: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        ChatSpec(**{"adapter": "run", **wrong})


@pytest.mark.parametrize("wrong", ["adapter='none'", "adapter='none', frame='none'"])
def test_a_wrong_path_is_answered_before_torch_is_loaded(wrong: str, tmp_path: Path) -> None:
    code = f"""
import sys
from graftlab.errors import GraftlabError
from graftlab.verbs.chat import ChatSpec, run
try:
    run(ChatSpec({wrong}))
except GraftlabError:
    print("heavy" if "torch" in sys.modules else "light")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "light\n", done.stderr


class Typist:
    """Someone at a terminal, who waits for what is to be seen before typing on."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.seen = descriptor, ""

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """What was on the screen up to there and not seen before."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None:
            ready, _, _ = select.select([self.descriptor], [], [], end - time.monotonic())
            assert ready, f"{pattern!r} did not come: {self.seen!r}"
            self.seen += os.read(self.descriptor, 4096).decode(errors="replace")
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before


@contextmanager
def terminal(*words: str) -> Iterator[tuple[Typist, subprocess.Popen[bytes]]]:
    """`graftlab WORDS` at a terminal of its own, so that its keys send signals."""
    ours, theirs = pty.openpty()
    program = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        f"from graftlab.cli.main import main; sys.exit(main({list(words)!r}))"
    )
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, **streams, **heard
    ) as process:
        os.close(theirs)
        try:
            yield Typist(ours), process
        finally:
            process.kill()
            os.close(ours)


def test_ctrl_c_stops_a_reply_and_ctrl_d_ends_the_chat(folder: Path) -> None:
    words = ["generation.max_new_tokens=1900", "precision=fp32", "device=cpu"]
    with terminal("chat", str(folder), *words) as (typist, process):
        typist.wait_for(r"/help lists the commands\.\r\n> ")
        for _ in range(3):  # a second one would end what hangs: these were answered
            typist.type("Who?\n")
            typist.wait_for(r"(?s)Who\?\r\n.{40}")
            typist.type("\x03")
            typist.wait_for(r"interrupted; \d+ of \d+ prompt tokens read\r\n> ")
        typist.type("half a line")
        typist.wait_for("half a line")
        typist.type("\x03")
        typist.wait_for(r"Ctrl-D or /quit ends the chat\.\r\n> ")
        typist.type("/scail\n")
        typist.wait_for(r"Did you mean `/scale`\?.*\r\n> ")
        typist.type("/undo\n")
        typist.wait_for("taken back: Who\\?\r\n> ")
        typist.type("\x04")
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_line_can_be_edited(folder: Path) -> None:
    pytest.importorskip("readline")
    with terminal("chat", str(folder), *QUICK) as (typist, process):
        typist.wait_for(r"commands\.\r\n> ")
        typist.type("/sca 0.5")
        typist.type("\x1b[D" * 4 + "le\n")  # to the left, and in between
        typist.wait_for(r"answers at 0\.5 of its strength")
        typist.type("/base\n")
        typist.wait_for("nothing was asked yet")
        typist.type("Who?\n")
        typist.wait_for(r"prompt tokens read\r\n> ")
        typist.type("/base\n")
        typist.wait_for(r"(?s)/base\r\nbase\r\n.*prompt tokens read\r\n> ")
        typist.type("/quit\n")
        assert process.wait(60) == 0


def test_ctrl_c_ends_a_chat_that_reads_a_pipe(folder: Path) -> None:
    words = ["chat", str(folder), "generation.max_new_tokens=1900", "device=cpu"]
    program = f"import sys; from graftlab.cli.main import main; sys.exit(main({words!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"Who?\n")
        process.stdin.flush()
        assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read().endswith(b"graftlab chat: stopped by Ctrl-C.\n")
