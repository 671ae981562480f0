"""A launch of a sweep: enter the jobs, keep workers busy, show how it stands, say how it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from graftlab.errors import Interrupted
from graftlab.process import one_more_signal, signals_to
from graftlab.sweeps.jobs import Job
from graftlab.sweeps.launchers.base import Workers
from graftlab.sweeps.launches import give_up_paused, present
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.rules import Rules
from graftlab.sweeps.source import Source
from graftlab.sweeps.spec import Sweep

LOOK_SECONDS = 0.25
"""Between two looks at workers and ledger."""


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """How a launch ended."""

    folder: Path
    jobs: list[Job]
    """All that the launch wanted, as they are now."""
    seconds: float

    def count(self, state: str) -> int:
        return sum(job.state == state for job in self.jobs)


def prepare(folder: Path, sweep: Sweep) -> tuple[Ledger, Rules]:
    """The ledger of the sweep in `folder`, made if there is none, and the rules of its latest line.

    Another line may be at work on it by rules of its own: `own_facts` is what `launch` goes by.
    """
    ledger = Ledger(folder)
    ledger.create()
    rules = Rules.of(sweep)
    if ledger.fact("rules") != asdict(rules):
        ledger.put("rules", asdict(rules))
    ledger.put("retries", sweep.retries)
    return ledger, rules


def launch(
    ledger: Ledger,
    source: Source,
    workers: Callable[[str], Workers],
    *,
    slots: int,
    timeout: float | None = None,
    name: str | None = None,
    watch: Callable[[list[Job]], None] = lambda jobs: None,
    facts: Mapping[str, Any] | None = None,
) -> SweepOutcome:
    """Run the sweep to its end. `workers` makes them for a launch's name; `watch` shows the jobs.

    A launch has a `name` given where its workers may still be there from an earlier start, or
    after this one. `facts` are its own (`own_facts`); without them it goes by the ledger's.

    Raises Interrupted after a signal, when every running job has been saved, and GraftlabError
    when no worker can work.
    """
    began = time.monotonic()
    with present(ledger, name) as own:
        for key, value in (facts or {}).items():
            ledger.put(f"{key} {own}", value)
        feeder = _Feeder(ledger, source, own, slots)
        feeder.feed()
        pool = workers(own)
        with _signals(pool) as received:
            try:
                pool.start()
                while pool.poll():
                    watch(ledger.jobs(own))
                    if timeout is not None and time.monotonic() - began > 60 * timeout:
                        feeder.halt()
                    feeder.feed()
                    time.sleep(LOOK_SECONDS)
            finally:
                pool.close()
                watch(ledger.jobs(own))
        if received:
            what = signal.Signals(received[0]).name
            raise Interrupted(f"{what}: {pool.parting}", 128 + received[0])
        give_up_paused(ledger, own)
        return SweepOutcome(ledger.folder, ledger.jobs(own), time.monotonic() - began)


class _Feeder:
    """Enters jobs as the source gives them, and says when it has no more."""

    def __init__(self, ledger: Ledger, source: Source, launch: str, slots: int) -> None:
        self.ledger, self.source, self.launch, self.slots = ledger, source, launch, slots
        self._closed = self._halted = False

    def halt(self) -> None:
        """No further job is started, nor entered."""
        if not self._halted:
            self.ledger.put(f"halted {self.launch}", True)
        self._halted = True

    def feed(self) -> None:
        if self._closed or self._halted:
            return
        while not self._entered():  # another launch was quicker: see what it has entered
            self.source.withdraw()
        if self.source.exhausted:
            self.ledger.put(f"closed {self.launch}", True)
            self._closed = True

    def _entered(self) -> bool:
        """Draw jobs and enter them; False where the ledger is not what they were drawn from."""
        known = self.ledger.jobs()
        ours = self.ledger.jobs(self.launch)
        open_jobs = sum(job.state in ("waiting", "running") for job in ours)
        room = max(0, self.slots - open_jobs)
        drafts = self.source.draw(known, self.ledger.rungs(), room=room)
        return not drafts or self.ledger.add_to(len(known), drafts, launch=self.launch)


def own_facts(rules: Rules, sweep: Sweep) -> dict[str, Any]:
    """What the workers of a launch go by, whatever another line says meanwhile."""
    return {"rules": asdict(rules), "retries": sweep.retries}


@contextmanager
def _signals(pool: Workers) -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP are passed on to the workers; yields what was received.

    The second one kills them.
    """
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        pool.stop(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    with one_more_signal(), signals_to(forward):
        yield received
