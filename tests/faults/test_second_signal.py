"""A second Ctrl-C or SIGTERM ends the process, whatever it is doing; two SIGHUP are one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from commands import command
from graftlab.errors import Interrupted
from graftlab.process import signals_to, stop_signals

CLEANS_UP = r"""
import threading
try:
    os.write(1, b"ready\n")
    threading.Event().wait()
finally:
    os.write(1, b"cleaning up\n")
    while True:
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
"""
DEADLOCK = r"""
import ctypes
mutex = ctypes.create_string_buffer(256)
lock = ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
os.write(1, b"ready\n")
lock(mutex)
"""
LINES = {
    "plan": ("plan", "machine=cpu"),
    "train": ("train", "hydra.run.dir=run", "logger=none"),
}


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_the_second_one_ends_what_hangs_in_cleaning_up(tmp_path: Path, verb: str) -> None:
    with command(*LINES[verb], body=CLEANS_UP, folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"cleaning up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert b"SIGINT: ended at once" in process.stderr.read()


def test_the_second_one_ends_what_hangs_in_native_code(tmp_path: Path) -> None:
    """No Python handler would ever run there."""
    with command(*LINES["train"], body=DEADLOCK, folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        # Different ones, as two equal signals that wait are one.
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        # SIGTERM has no handler of Python's here, and ends the process by itself.
        assert process.wait(60) in (143, -signal.SIGTERM)


def test_the_second_one_ends_a_run_that_hangs_in_native_code(tmp_path: Path) -> None:
    handled = "from graftlab.process import signals_to; kept = signals_to(lambda *_: None)"
    body = f"{handled}\nkept.__enter__()\n{DEADLOCK}"
    with command(*LINES["train"], body=body, folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (130, 143)


def test_the_first_one_is_told(tmp_path: Path) -> None:
    body = "os.write(1, b'ready\\n'); threading.Event().wait()"
    with command(*LINES["plan"], body=body, folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors == b"graftlab plan: stopped by Ctrl-C.\n"


@pytest.fixture
def heard() -> list[int]:
    return []


def test_a_closed_terminal_is_told_once(heard: list[int]) -> None:
    """By the system and by the shell."""
    with signals_to(lambda number, frame: heard.append(number)):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert heard == [signal.SIGHUP]
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert heard == [signal.SIGHUP, signal.SIGTERM]


def test_what_nohup_ignores_stays_ignored(heard: list[int]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stop_signals()
        with signals_to(lambda number, frame: heard.append(number)):
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard == []


def test_a_run_saves_for_sighup_between_steps_and_stops_elsewhere() -> None:
    from graftlab.training.signals import Signals

    with Signals() as signals:
        signals.stepping = True
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert signals.received == signal.SIGHUP
    with Signals(), pytest.raises(Interrupted, match="SIGHUP") as stop:
        signal.raise_signal(signal.SIGHUP)
    assert stop.value.exit_code == 129


def test_a_sweep_passes_sighup_on_and_kills_for_a_second_signal_only(tmp_path: Path) -> None:
    from graftlab.sweeps.engine import launch, prepare
    from graftlab.sweeps.pool import KILLED, Pool
    from graftlab.sweeps.slots import Slot
    from graftlab.sweeps.source import Grid
    from graftlab.sweeps.spec import Sweep
    from sweep_crew import draft

    sleeper = ("-c", "import time; time.sleep(600)")
    ledger, _ = prepare(tmp_path, Sweep())

    def ends(*numbers: int) -> Interrupted:
        def watch(jobs: object) -> None:
            for number in numbers:
                signal.raise_signal(number)

        with pytest.raises(Interrupted) as stop:
            launch(
                ledger,
                Grid([draft("x")]),
                lambda name: Pool(ledger, name, [Slot("cpu 0")], 1, program=sleeper),
                slots=1,
                watch=watch,
            )
        return stop.value

    once = ends(signal.SIGHUP, signal.SIGHUP)
    assert once.exit_code == 129
    assert KILLED not in str(once)
    twice = ends(signal.SIGINT, signal.SIGINT)
    assert twice.exit_code == 130
    assert KILLED in str(twice)
