"""A worker process of a sweep: python -m graftlab.sweeps SWEEP LAUNCH [--joint N], by a launcher.

Its input is a pipe that the launcher holds open; when it closes, the launcher is gone, and the
worker saves and leaves as if it had been signalled.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from graftlab.errors import Interrupted
from graftlab.parent_watch import leave_with_parent
from graftlab.process import stop_signals
from graftlab.sweeps.joint_worker import JointWorker
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.worker import Worker
from graftlab.terminal import go_on_without_stdout, steady_streams


def main(
    arguments: Sequence[str] | None = None,
    *,
    worker: Callable[[Ledger, str], Worker] | None = None,
) -> int:
    """Work until the launch has nothing left to do; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("launch")
    parser.add_argument("--joint", type=int, default=0, help="train up to N adapters together")
    given = parser.parse_args(arguments)
    for number in stop_signals():
        signal.signal(number, _stop)
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # a cluster's, for sweeps/node_agent.py alone
        signal.signal(number, signal.SIG_IGN)
    leave_with_parent()
    made = worker or (partial(JointWorker, most=given.joint) if given.joint > 1 else Worker)
    with steady_streams():
        go_on_without_stdout()
        try:
            return made(Ledger(given.sweep), given.launch).work()
        except Interrupted as stop:
            return stop.exit_code


def _stop(number: int, frame: FrameType | None) -> None:
    """A signal between two jobs; while one trains, its run takes signals itself."""
    raise Interrupted(f"{signal.Signals(number).name}: stopped.", 128 + number)


if __name__ == "__main__":
    sys.exit(main())
