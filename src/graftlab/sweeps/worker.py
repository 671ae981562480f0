"""A worker of a sweep: claims jobs and trains them, one after the other, on one loaded base."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftlab.errors import CrashError, GraftlabError, Interrupted, Paused
from graftlab.files.writing import write_atomic
from graftlab.plugins import raised_in
from graftlab.registry import restore
from graftlab.sweeps.claim import Claim, claim
from graftlab.sweeps.heartbeat import heartbeats
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.prefix_sharing import branch, branch_file
from graftlab.sweeps.rules import Rules, is_open
from graftlab.sweeps.watcher import watch_job
from graftlab.terminal import printable, tell_traceback
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.result import resident_mb
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run

IDLE_SECONDS = 0.2
"""Between two looks into the ledger when nothing can be claimed."""
ABANDONED_SECONDS = 300.0
"""A worker on a cluster with nothing to do leaves when nobody has watched the launch so long."""
RECYCLE = 75
"""Exit code of a worker that wants to be replaced: it holds much more memory than it began with."""
CRASHED = 3
"""Exit code after a job failed in a way that may have left something broken behind."""


class Worker:
    """One process, one base, one job at a time."""

    def __init__(self, ledger: Ledger, launch: str) -> None:
        self.ledger, self.launch = ledger, launch
        self.rules = Rules(**ledger.fact("rules", launch))
        self.retries = int(ledger.fact("retries", launch) or 0)
        self._first_rest: float | None = None

    def work(self) -> int:
        """Train what can be claimed until nothing is left. Raises Interrupted after a signal."""
        while not self.ledger.fact(f"halted {self.launch}"):
            claimed = claim(self.ledger, self.launch, rules=self.rules, retries=self.retries)
            if claimed is None:
                if self._over():
                    return 0
                time.sleep(IDLE_SECONDS)
                continue
            try:
                self.train(claimed)
            finally:
                claimed.release()
            if self._bloated():
                return RECYCLE
        return 0

    def train(self, claimed: Claim) -> None:
        """One job to its end, its pause or its failure; the ledger says which.

        Raises Interrupted after a signal, and SystemExit where something broken may be left behind.
        """
        number, folder = claimed.job.number, self.folder(claimed)
        try:
            with heartbeats(self.ledger, number), output_to(folder / "train.log"):
                score = self.perform(claimed, folder)
        except BaseException as problem:
            self.finish(claimed, error=problem)
            leave_if_broken(problem)
        else:
            self.finish(claimed, score=score)

    def finish(
        self,
        claimed: Claim,
        *,
        score: float | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Enter what became of a job, which is not this worker's any more.

        Nothing is said of one that another worker has taken over.
        """
        job, state, said = claimed.job, "done", None
        file = self.ledger.folder / job.folder / "error.txt"
        if isinstance(error, Paused):
            state = "paused"
        elif isinstance(error, Exception) and not isinstance(error, Interrupted):
            # But for a crash, trying again would end the same way.
            mistake = isinstance(error, GraftlabError) and not isinstance(error, CrashError)
            again = not mistake and job.tries < self.retries
            state, said = "waiting" if again else "failed", error_line(error)
        elif error is not None:
            state = "waiting"
        ours = self.ledger.end(
            *(job.number, state),
            launch=self.launch,
            score=score,
            error=said,
            worker=job.worker,
        )
        if ours and error is None:
            file.unlink(missing_ok=True)
        elif ours and error is not None and said is not None:
            trace = "".join(traceback.format_exception(error))
            write_atomic(file, f"{error}\n" if isinstance(error, GraftlabError) else trace)

    def folder(self, claimed: Claim) -> Path:
        """The run folder of a job, made if it is not there."""
        folder = self.ledger.folder / claimed.job.folder
        RunFolder(folder).take()
        return folder

    def spec(self, claimed: Claim) -> TrainSpec:
        """What a job is to train, in its folder, going on from what lies there."""
        folder = self.folder(claimed)
        spec = restore(TrainSpec, self.ledger.spec(claimed.job.number))
        spec.run_dir, spec.resume = str(folder), "auto"
        self._branch(claimed, spec, RunFolder(folder))
        return spec

    def perform(self, claimed: Claim, folder: Path) -> float | None:
        """Train the job in its folder; what it is compared by, less being better."""
        observer = watch_job(self.ledger, claimed.job, self.rules)
        return run(self.spec(claimed), observer=observer).rank

    def _branch(self, claimed: Claim, spec: TrainSpec, folder: RunFolder) -> None:
        """Begin a job that has a trunk where it leaves it, unless it has begun already."""
        job = claimed.job
        if job.trunk is None or job.branch_step is None:
            return
        other = next(other for other in self.ledger.jobs() if other.number == job.trunk)
        trunk = RunFolder(self.ledger.folder / other.folder)
        saved = branch_file(trunk, job.branch_step)
        if saved.is_file():
            branch(saved, trunk=trunk, spec=spec, folder=folder)

    def _over(self) -> bool:
        """Whether nothing can become claimable any more."""
        if not self.ledger.fact(f"closed {self.launch}"):
            # Whoever enters the jobs of a launch on a cluster may be gone.
            watched = self.ledger.fact(f"watched {self.launch}")
            return watched is not None and time.time() - watched > ABANDONED_SECONDS
        return not any(is_open(job, retries=self.retries) for job in self.ledger.jobs(self.launch))

    def _bloated(self) -> bool:
        """Whether memory has leaked: at rest, this process was much smaller after its first job."""
        resting = resident_mb()
        if self._first_rest is None:
            self._first_rest = resting
        return resting > 1.5 * self._first_rest + 512


def error_line(error: Exception) -> str:
    """An error in a line for the ledger; of one in a plug-in, with file and line."""
    if isinstance(error, GraftlabError):
        return str(error)
    return raised_in(error) or f"{type(error).__name__}: {error}"


def leave_if_broken(error: BaseException) -> None:
    """Go on after what ends a job alone; raise what ends the worker too."""
    if isinstance(error, Paused | GraftlabError):
        return
    if isinstance(error, Interrupted) or not isinstance(error, Exception):
        raise error
    raise SystemExit(CRASHED) from error


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Everything this process prints, C libraries included, appended to `path`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        yield
    except (Paused, Interrupted, GraftlabError) as end:
        print(printable(end))
        raise
    except BaseException as error:
        tell_traceback(error)
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
