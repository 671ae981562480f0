"""`graftlab serve`: what is refused before anything is loaded, and how it starts and ends."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from commands import python
from graftlab.cli.main import main
from graftlab.errors import ConfigError
from graftlab.models.tiny import TinyModel
from graftlab.verbs.serve import ServeSpec, run
from knocking import knock
from miniatures import miniature
from trained_runs import trained_run

SECRET = "f00dfacedeadbeef0123"


@pytest.fixture(autouse=True)
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """No base is loaded: whoever tries fails."""
    monkeypatch.setattr("graftlab.models.cache.acquire", None)


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        ({}, r"adapters=\[RUN\], or model=tiny"),
        ({"adapters": ["a"], "port": 70000}, "port=70000"),
        ({"adapters": ["a"], "batch": 0}, "batch=0"),
        ({"adapters": ["a"], "device": "gpu"}, "device=gpu"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(wrong: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        ServeSpec(**wrong)


def test_missing_packages_are_named_with_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else real(name)
    )
    with pytest.raises(ConfigError, match=r"uvicorn: pip install 'graftlab\[serve\]'"):
        run(ServeSpec(model=TinyModel()))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_others_need_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match=f"host={host} can be reached.*key_env=GRAFTLAB_KEY"):
        run(ServeSpec(model=TinyModel(), host=host))


@pytest.mark.parametrize("value", [None, "", "short", "contains\nline ends and more"])
def test_a_key_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("MY_KEY", raising=False)
    else:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="must name an environment variable"):
        run(ServeSpec(model=TinyModel(), key_env="MY_KEY"))


def test_a_key_on_the_command_line_is_not_repeated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = knock(capsys, "serve", "model=tiny", f"key_env={SECRET}")
    assert done.code == 2
    assert "is not for a command line" in done.err
    assert SECRET not in done.out + done.err
    done = knock(capsys, "serve", "model=tiny", f"key={SECRET}")
    assert done.code == 2
    assert "Did you mean `key_env`?" in done.err
    assert SECRET not in done.out + done.err
    monkeypatch.setenv("MY_KEY", SECRET)
    assert knock(capsys, "serve", "model=tiny", f"key_env={SECRET}").code == 2


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = knock(capsys, "serve", "model=tiny", f"port={port}")
    assert done.code == 2
    assert f"port={port} cannot be listened at: Address already in use" in done.err


def test_a_host_that_cannot_be_one_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    done = knock(capsys, "serve", "model=tiny", "host=a..b", "key_env=MY_KEY")
    assert done.code == 2
    assert "host=a..b is no address here" in done.err
    assert SECRET not in done.out + done.err


def test_adapters_of_two_bases_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for seed in (1, 2):
        base = miniature("qwen2", tmp_path / f"base{seed}", seed=seed)
        runs.append(str(trained_run(tmp_path / f"run{seed}", base)))
    done = knock(capsys, "serve", f"adapters=[{','.join(runs)}]")
    assert done.code == 2
    assert all(run in done.err for run in runs)
    assert "take adapters of another one apart" in done.err


def test_it_starts_answers_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """In a process of its own, beside which nothing else waits for the signal."""
    words = ["serve", "model=tiny", "port=0", "device=cpu", "precision=fp32"]
    program = f"import sys; from graftlab.cli.main import main; sys.exit(main({words!r}))"
    with python(program, folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"as: base" in process.stdout.readline()
        found = re.match(rb"(http://127\.0\.0\.1:\d+/v1);", process.stdout.readline())
        assert found is not None
        url = found[1].decode()
        ask = {"model": "base", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        answer = httpx2.post(f"{url}/chat/completions", json=ask, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] <= 3
        assert re.match(rb"base: \d+ \+ \d tokens, ", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b"stopped by SIGINT.\n"


def test_a_wrong_path_is_answered_before_torch_is_loaded(tmp_path: Path) -> None:
    code = """
import sys
from graftlab.errors import GraftlabError
from graftlab.verbs.serve import ServeSpec, run
try:
    run(ServeSpec(adapters=["none"]))
except GraftlabError:
    print([name for name in ("torch", "starlette") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "[]\n", done.stderr


def test_help_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    assert "[ADAPTER ...]" in capsys.readouterr().out
