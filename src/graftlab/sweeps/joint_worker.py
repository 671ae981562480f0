"""A worker that trains jobs together: the one it has claimed, and those that fit beside it.

What cannot share a base, what crashed before, and what is alone trains as with any other worker.
What the jobs share may go wrong without any of them being to blame: then each trains alone. Where
one leaves, another takes its place as soon as that costs the others nothing (`JointGroup.joiners`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import Interrupted
from graftlab.recipes.dataset import ensure_dataset
from graftlab.registry import restore
from graftlab.sweeps.claim import Accepts, Claim, anyone, claim, claimable, worker_name
from graftlab.sweeps.heartbeat import heartbeats
from graftlab.sweeps.jobs import Job
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.watcher import watch_job
from graftlab.sweeps.worker import Worker, error_line, leave_if_broken, output_to
from graftlab.terminal import printable
from graftlab.tracking.folder import RunFolder
from graftlab.training.joint.groups import JointJob, group, unfit
from graftlab.training.spec import TrainSpec

if TYPE_CHECKING:
    from graftlab.training.signals import Signals

ASK_SECONDS = 1.0
"""Between two looks for jobs that could join, when nobody has left since."""


class JointWorker(Worker):
    """One process, one base, up to `most` jobs at a time."""

    def __init__(self, ledger: Ledger, launch: str, *, most: int) -> None:
        super().__init__(ledger, launch)
        self.most = most
        self._specs: dict[int, TrainSpec] = {}
        self._beside: dict[tuple[int, int], bool] = {}

    def train(self, claimed: Claim) -> None:
        """The job and those beside it, each to its end; the ledger is told of each at once."""
        others = self.claim_beside(claimed.job, room=self.most - 1)
        if not others:
            super().train(claimed)
            return
        self._together([claimed, *others])

    def claim_beside(self, first: Job, *, room: int, accepts: Accepts = anyone) -> list[Claim]:
        """Up to `room` further jobs that can train beside this one."""
        claims: list[Claim] = []
        if not self._fits_beside(first, first):
            return claims
        while len(claims) < room:
            other = claim(
                self.ledger,
                self.launch,
                rules=self.rules,
                retries=self.retries,
                accepts=lambda job: self._is_free_beside(first, job) and accepts(job),
            )
            if other is None:
                break
            claims.append(other)
        return claims

    def free_beside(self, first: Job) -> list[Job]:
        """Jobs that could be claimed to train beside this one."""
        found = claimable(
            self.ledger,
            self.launch,
            rules=self.rules,
            retries=self.retries,
            accepts=lambda job: self._is_free_beside(first, job),
        )
        return [job for job, _ in found]

    def takes_more(self) -> bool:
        """Whether to begin further jobs before those at hand have ended."""
        return not self.ledger.fact(f"halted {self.launch}") and not self._bloated()

    def _is_free_beside(self, first: Job, job: Job) -> bool:
        # What a dead worker has left may have killed it: whoever takes that over is alone with it.
        return job.state != "running" and self._fits_beside(first, job)

    def _fits_beside(self, job: Job, other: Job) -> bool:
        """Whether two jobs share what they must; one that has crashed takes no others along."""
        if job.tries or other.tries or job.alone or other.alone:
            return False
        pair = job.number, other.number
        if pair not in self._beside:
            ours, theirs = self.plain(job), self.plain(other)
            self._beside[pair] = not unfit([ours, theirs]) and len(group([ours, theirs])) == 1
        return self._beside[pair]

    def plain(self, job: Job) -> TrainSpec:
        """The job's specification as the ledger has it."""
        if job.number not in self._specs:
            self._specs[job.number] = restore(TrainSpec, self.ledger.spec(job.number))
        return self._specs[job.number]

    def _together(self, claims: list[Claim]) -> None:
        """Train these jobs in one process. Raises Interrupted after a signal, however late."""
        from graftlab.training.signals import Signals

        with Signals() as signals, ExitStack() as stack:
            together = JointGroup(self, claims, stack)
            try:
                with output_to(self.ledger.folder / together.log):
                    together.train(signals)
            except BaseException as problem:
                together.disband(problem)
                leave_if_broken(problem)
        if signals.received is not None:  # while the last of them ended: nobody stopped for it
            name = signal.Signals(signals.received).name
            raise Interrupted(f"{name}: stopped behind the last run.", 128 + signals.received)


@dataclass(slots=True, eq=False)
class _Member:
    """A job that trains with others; `held` are its heartbeat and folder until it is let go of."""

    claim: Claim
    held: ExitStack


class JointGroup:
    """Jobs that train together, those that have left and those that joined later among them."""

    def __init__(self, worker: JointWorker, claims: Sequence[Claim], stack: ExitStack) -> None:
        """`stack` outlives the group: heartbeats stop, and locks are released, at its end."""
        self.worker, self.ledger, self.first = worker, worker.ledger, claims[0].job
        self.log = f"joint-{self.first.number:04d}.log"
        self._stack = stack
        self._present: list[_Member] = []  # claimed, and not let go of
        self._seated: list[_Member] = []  # by the index under which each is told of
        self._next_look = 0.0
        self._prompts = max(worker.plain(one.job).callbacks.samples.prompts for one in claims)
        self._begin = self._enter(claims)

    def _enter(self, claims: Sequence[Claim]) -> list[_Member]:
        """Hold these jobs until they are let go of."""
        members = []
        for one in claims:
            self._stack.callback(one.release)
            held = self._stack.enter_context(ExitStack())
            held.enter_context(heartbeats(self.ledger, one.job.number))
            members.append(_Member(one, held))
        self._present += members
        return members

    def train(self, signals: Signals) -> None:
        """All to their ends. Raises Interrupted after a signal, when all are let go of."""
        from graftlab.training.joint.run import execute_together

        ensure_dataset(self.worker.plain(self.first).data)
        stopped: Interrupted | None = None
        jobs = self._prepared(self._begin)
        together = execute_together(jobs, signals=signals, joiners=self.joiners) if jobs else ()
        for ended in together:
            member, error = self._seated[ended.index], ended.error
            score = ended.result.rank if ended.result else None
            self._let_go(member, score=score, error=error, shared=ended.shared)
            if isinstance(error, Interrupted):
                stopped = error
        if stopped is not None:
            raise stopped

    def joiners(self, step: int, active: int) -> list[JointJob]:
        """Jobs that take places which have become free; `active` runs at `step` train next.

        Who stands at that step, or further on, passes along. Who does not keeps the others waiting:
        that costs nothing where as many come at once as would have trained meanwhile, or all that
        there are.
        """
        room = self.worker.most - len(self._present)
        if room <= 0 or time.monotonic() < self._next_look or not self.worker.takes_more():
            return []
        self._next_look = time.monotonic() + ASK_SECONDS
        free = [job for job in self.worker.free_beside(self.first) if self._has_prompts(job)]
        level = sum(_standing(job) >= step for job in free)
        everyone = room - level >= min(len(free) - level, active)
        claims = self.worker.claim_beside(
            self.first,
            room=room if everyone else min(room, level),
            accepts=lambda job: self._has_prompts(job) and (everyone or _standing(job) >= step),
        )
        return self._prepared(self._enter(claims))

    def _has_prompts(self, job: Job) -> bool:
        """Whether a joiner samples no more prompts than were kept for those it joins."""
        return self.worker.plain(job).callbacks.samples.prompts <= self._prompts

    def _prepared(self, members: Sequence[_Member]) -> list[JointJob]:
        """What each is to train; who cannot begin is let go of, and the others do."""
        jobs = []
        for member in members:
            try:
                jobs.append(self._job(member))
            except Interrupted:
                raise
            except Exception as error:  # only files were read: nothing broken is left behind
                print(printable(f"{member.claim.job.name}: {error_line(error)}"))
                self._let_go(member, error=error)
            else:
                self._seated.append(member)
        numbers = ", ".join(str(member.claim.job.number) for member in self._present)
        for member in members:
            if member in self._present:
                line = f"Trained jointly: jobs {numbers}. What was said meanwhile: ../{self.log}"
                self._note(member.claim, line)
        return jobs

    def _job(self, member: _Member) -> JointJob:
        claimed = member.claim
        folder = RunFolder(self.worker.folder(claimed))
        member.held.enter_context(folder.held())
        observer = watch_job(self.ledger, claimed.job, self.worker.rules)
        return JointJob(spec=self.worker.spec(claimed), folder=folder, observer=observer)

    def disband(self, problem: BaseException) -> None:
        """Let go of all that are left, for what is nobody's own."""
        for member in list(self._present):
            self._let_go(member, error=problem, shared=True)

    def _let_go(
        self,
        member: _Member,
        *,
        score: float | None = None,
        error: BaseException | None = None,
        shared: bool = False,
    ) -> None:
        """Enter what became of a job, and free its place and its lock: it may go on elsewhere, or
        here again. An error of what all share is none of its own.
        """
        member.held.close()
        if shared and isinstance(error, Exception) and not isinstance(error, Interrupted):
            self._note(
                member.claim, f"What the jobs shared failed; alone from here. {error_line(error)}"
            )
            number = member.claim.job.number
            launch, worker = self.worker.launch, worker_name()
            self.ledger.part(numbers=[number], launch=launch, worker=worker)
        else:
            self.worker.finish(member.claim, score=score, error=error)
        self._present.remove(member)
        member.claim.release()
        self._next_look = 0.0

    def _note(self, claimed: Claim, line: str) -> None:
        """A line in the job's own log."""
        with (self.worker.folder(claimed) / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def _standing(job: Job) -> float:
    """The step from which a job would go on."""
    return job.progress.get("step", job.branch_step or 0)
