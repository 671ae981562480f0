"""A crew that only pretends to train: workers of the real kind whose jobs are told how to end.

Run by a pool as `python sweep_crew.py SWEEP LAUNCH`. A job's specification is a word:
    fine      done at once, with the score it was given
    refused   a mistake of the user's
    broken    an exception
    killed    the process kills itself, as the system does when memory is short
    slow      takes until somebody stops it
Each start of a job adds a line to `starts.txt` of its folder.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from graftlab.errors import GraftlabError, Interrupted
from graftlab.sweeps.__main__ import main
from graftlab.sweeps.claim import Claim
from graftlab.sweeps.jobs import NewJob
from graftlab.sweeps.worker import Worker


def draft(name: str, *, act: str = "fine", score: float = 1.0, label: str = "") -> NewJob:
    """A job of the crew's."""
    spec = {"act": act, "score": score}
    return NewJob(identity=name, label=label, swept={"name": name}, spec=spec)


class Pretender(Worker):
    """A worker whose runs take no time."""

    def perform(self, claimed: Claim, folder: Path) -> float | None:
        with (folder / "starts.txt").open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        spec = self.ledger.spec(claimed.job.number)
        act = spec["act"]
        if act == "refused":
            raise GraftlabError("no such thing")
        if act == "broken":
            raise ZeroDivisionError("ours")
        if act == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "slow":
            self.ledger.tell(claimed.job.number, {"step": 1, "total_steps": 2})
            try:
                time.sleep(60)
            except Interrupted:
                (folder / "saved.txt").write_text("yes", encoding="utf-8")
                raise
        return float(spec["score"])


if __name__ == "__main__":
    sys.exit(main(worker=Pretender))
