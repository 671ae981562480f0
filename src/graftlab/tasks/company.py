"""A worker that trains jobs together: the one it has claimed, and those that fit beside it.

What cannot share a base, what crashed before, and what is alone trains as with any other worker.
What the jobs share may go wrong without any of them being to blame: then each trains alone.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.choices import restore
from graftlab.errors import Interrupted
from graftlab.sweeps.claim import Claim, claim, worker_name
from graftlab.sweeps.heart import beating
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.watcher import watch_job
from graftlab.tasks.supply import supply
from graftlab.tasks.train import TrainSpec
from graftlab.tasks.worker import Worker, leave_if_broken, output_to, told
from graftlab.tracking.folder import RunFolder
from graftlab.training.joint.groups import Job, group, unfit

if TYPE_CHECKING:
    from graftlab.sweeps.jobs import Job as Entry
    from graftlab.training.signals import Signals


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
        if job.tries or other.tries or job.alone or other.alone:
            return False
        ours, theirs = self._plain(job), self._plain(other)
        return not unfit([ours, theirs]) and len(group([ours, theirs])) == 1

    def _plain(self, job: Entry) -> TrainSpec:
        """The job's specification as the ledger has it."""
        if job.number not in self._specs:
            self._specs[job.number] = restore(TrainSpec, self.ledger.spec(job.number))
        return self._specs[job.number]

    def _together(self, claims: list[Claim]) -> None:
        """Train these jobs in one process. Raises Interrupted after a signal, however late."""
        from graftlab.training.signals import Signals

        log = self.ledger.folder / f"joint-{claims[0].job.number:04d}.log"
        with Signals() as signals, ExitStack() as stack:
            members = [_Member(one, stack.enter_context(ExitStack())) for one in claims]
            for member in members:
                member.heart.enter_context(beating(self.ledger, member.claim.job.number))
            try:
                with output_to(log):
                    self._train_all(members, log.name, signals)
            except BaseException as problem:
                for member in members:
                    if not member.gone:
                        self._let_go(member, error=problem, shared=True)
                leave_if_broken(problem)
        if signals.received is not None:  # while the last of them ended: nobody stopped for it
            name = signal.Signals(signals.received).name
            raise Interrupted(f"{name}: stopped behind the last run.", 128 + signals.received)

    def _train_all(self, members: list[_Member], log: str, signals: Signals) -> None:
        from graftlab.training.joint.run import execute_together

        supply(self._plain(members[0].claim.job).data)
        prepared = self._prepared(members)
        for member, _ in prepared:
            self._refer(member.claim, [other.claim for other, _ in prepared], log)
        stopped: Interrupted | None = None
        jobs = [job for _, job in prepared]
        for ended in execute_together(jobs, signals=signals) if jobs else ():
            member, error = prepared[ended.index][0], ended.error
            score = ended.result.score if ended.result else None
            self._let_go(member, score=score, error=error, shared=ended.shared)
            if isinstance(error, Interrupted):
                stopped = error
        if stopped is not None:
            raise stopped

    def _prepared(self, members: list[_Member]) -> list[tuple[_Member, Job]]:
        """What each is to train; who cannot begin is let go of, and the others do."""
        prepared = []
        for member in members:
            try:
                prepared.append((member, self._job(member.claim)))
            except Interrupted:
                raise
            except Exception as error:  # only files were read: nothing broken is left behind
                print(f"{member.claim.job.name}: {told(error)}")
                self._let_go(member, error=error)
        return prepared

    def _job(self, claimed: Claim) -> Job:
        folder = RunFolder(self.folder(claimed))
        observer = watch_job(self.ledger, claimed.job, self.rules)
        return Job(spec=self.spec(claimed), folder=folder, observer=observer)

    def _let_go(
        self,
        member: _Member,
        *,
        score: float | None = None,
        error: BaseException | None = None,
        shared: bool = False,
    ) -> None:
        """Enter what became of a job. An error of what all share is none of its own."""
        member.heart.close()
        if shared and isinstance(error, Exception) and not isinstance(error, Interrupted):
            self._log(member.claim, f"What the jobs shared failed; alone from here. {told(error)}")
            number = member.claim.job.number
            self.ledger.part(numbers=[number], launch=self.launch, worker=worker_name())
        else:
            self.settle(member.claim, score=score, error=error)
        member.gone = True

    def _refer(self, claimed: Claim, claims: list[Claim], log: str) -> None:
        """In the job's own log: with whom it trains, and where that is told."""
        numbers = ", ".join(str(one.job.number) for one in claims)
        self._log(claimed, f"Trained jointly: jobs {numbers}. What was said meanwhile: ../{log}")

    def _log(self, claimed: Claim, line: str) -> None:
        with (self.folder(claimed) / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


@dataclass(slots=True)
class _Member:
    """A job of a company; `heart` gives its signs of life until it is let go of."""

    claim: Claim
    heart: ExitStack
    gone: bool = False
