"""A worker that trains jobs together: the one it has claimed, and those that fit beside it.

What cannot share a base, what crashed before, and what is alone trains as with any other worker.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from graftlab.choices import restore
from graftlab.errors import Interrupted
from graftlab.sweeps.claim import Claim, claim
from graftlab.sweeps.heart import beating
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.watcher import watch_job
from graftlab.tasks.train import TrainSpec
from graftlab.tasks.worker import Worker, leave_if_broken, output_to
from graftlab.tracking.folder import RunFolder
from graftlab.training.joint.groups import Job, group, unfit

if TYPE_CHECKING:
    from graftlab.sweeps.jobs import Job as Entry


class JointWorker(Worker):
    """One process, one base, up to `most` jobs at a time."""

    def __init__(self, ledger: Ledger, launch: str, *, most: int) -> None:
        super().__init__(ledger, launch)
        self.most = most
        self._specs: dict[int, TrainSpec] = {}

    def train(self, claimed: Claim) -> None:
        """The job and its company, each to its end; the ledger is told of each at once."""
        company = self._company(claimed)
        if not company:
            super().train(claimed)
            return
        claims = [claimed, *company]
        try:
            self._together(claims)
        finally:
            for other in company:
                other.release()

    def _company(self, claimed: Claim) -> list[Claim]:
        """Further jobs that can train beside this one, claimed."""
        if not self._fits_beside(claimed.job, claimed.job):
            return []
        company: list[Claim] = []
        while len(company) + 1 < self.most:
            other = claim(
                self.ledger,
                self.launch,
                rules=self.rules,
                retries=self.retries,
                accepts=lambda job: self._fits_beside(claimed.job, job),
            )
            if other is None:
                break
            company.append(other)
        return company

    def _fits_beside(self, job: Entry, other: Entry) -> bool:
        """Whether two jobs share what they must; one that has crashed takes no others along."""
        if job.tries or other.tries:
            return False
        ours, theirs = self._plain(job), self._plain(other)
        return not unfit([ours, theirs]) and len(group([ours, theirs])) == 1

    def _plain(self, job: Entry) -> TrainSpec:
        """The job's specification as the ledger has it."""
        if job.number not in self._specs:
            self._specs[job.number] = restore(TrainSpec, self.ledger.spec(job.number))
        return self._specs[job.number]

    def _together(self, claims: list[Claim]) -> None:
        from graftlab.training.joint.run import execute_together

        open_claims = dict(enumerate(claims))
        log = self.ledger.folder / f"joint-{claims[0].job.number:04d}.log"
        stopped: Interrupted | None = None
        with ExitStack() as stack:
            hearts = {index: stack.enter_context(ExitStack()) for index in open_claims}
            for index, one in open_claims.items():
                hearts[index].enter_context(beating(self.ledger, one.job.number))
                self._refer(one, claims, log.name)
            try:
                with output_to(log):
                    jobs = [self._job(one) for one in claims]
                    for ended in execute_together(jobs):
                        hearts[ended.index].close()
                        one = open_claims.pop(ended.index)
                        score = ended.result.score if ended.result else None
                        self.settle(one, score=score, error=ended.error)
                        if isinstance(ended.error, Interrupted):
                            stopped = ended.error
            except BaseException as problem:  # of what they share: none of them is to blame alone
                for index, one in open_claims.items():
                    hearts[index].close()
                    self.settle(one, error=problem)
                leave_if_broken(problem)
        if stopped is not None:
            raise stopped

    def _job(self, claimed: Claim) -> Job:
        folder = RunFolder(self.folder(claimed))
        observer = watch_job(self.ledger, claimed.job, self.rules)
        return Job(spec=self.spec(claimed), folder=folder, observer=observer)

    def _refer(self, claimed: Claim, claims: list[Claim], log: str) -> None:
        """A line in the job's own log: with whom it trains, and where that is told."""
        numbers = ", ".join(str(one.job.number) for one in claims)
        with (self.folder(claimed) / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"Trained jointly: jobs {numbers}. What was said meanwhile: ../{log}\n")
