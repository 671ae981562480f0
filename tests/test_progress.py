"""One progress for all work that is counted: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from graftlab import progress
from graftlab.progress import Progress, Row, clock


def screen(*, terminal: bool) -> tuple[Console, StringIO]:
    said = StringIO()
    return Console(file=said, force_terminal=terminal, width=100, markup=False), said


def plain(said: StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.getvalue())


def test_on_a_terminal_there_is_a_bar_that_goes_when_the_work_is_done() -> None:
    console, said = screen(terminal=True)
    with Progress("encoding", total=1500, console=console) as bar:
        bar.advance(1200, note="3 [dropped]\x1b")
        bar.say("a line beside it")
    shown = plain(said)
    assert "encoding ━" in shown
    assert "1,200/1,500  3 [dropped]\\x1b" in shown
    assert "a line beside it" in shown
    assert "\x1b[1A\x1b[2K" in said.getvalue(), "the bar's line is taken away at the end"


def test_a_bar_may_stay() -> None:
    console, said = screen(terminal=True)
    with Progress("step", total=3, console=console, stays=True) as bar:
        bar.advance(3)
    assert plain(said).rstrip().splitlines()[-1].startswith("step ━")


def test_elsewhere_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    console, said = screen(terminal=False)
    with Progress("step", total=50, done=10, console=console) as bar:
        for step in range(11, 31):
            now += 2.0
            bar.show([Row(step, 50, f"loss {step}")])
    lines = said.getvalue().splitlines()
    # Ten seconds and more lie between two; what was done before took no time of ours.
    assert lines == [
        "  step 16/50  loss 16, 1:08 left",
        "  step 22/50  loss 22, 0:56 left",
        "  step 28/50  loss 28, 0:44 left",
    ]


def test_of_several_rows_the_line_is_about_the_last_that_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    console, said = screen(terminal=False)
    with Progress("read", "split", "mix", console=console) as bars:
        bars.show([Row(0), Row(0), Row(0)])
        assert not said.getvalue()
        bars.show([Row(9, None, "9 in, 9 out", counted=False), Row(4, 9), Row(0)])
        bars.show([Row(9, 9, "9 in, 9 out", counted=False), Row(0), Row(0)])
    assert re.fullmatch(r"  split 4/9.*\n  read 9 in, 9 out.*\n", said.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_not_to_be_shown_is_not(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    console, said = screen(terminal=terminal)
    with Progress("encoding", total=2, console=console, shown=False) as bar:
        bar.advance(2)
        assert not bar.due
    assert not said.getvalue()


def test_without_a_console_it_is_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with Progress("encoding", total=2) as bar:
        bar.advance(1)
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("  encoding 1/2")


def test_times_are_short() -> None:
    assert [clock(s) for s in (0.4, 59.6, 725, 3723)] == ["0:00", "1:00", "12:05", "1:02:03"]
