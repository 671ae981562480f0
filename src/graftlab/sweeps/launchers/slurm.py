"""`launcher=slurm`: workers as an array job, through submitit.

The jobs of the cluster outlive the process that submitted them: the same line finds them again.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graftlab.console import say
from graftlab.errors import ConfigError, GraftlabError, require_choice, require_range
from graftlab.registry import choice
from graftlab.sweeps.cluster import Cluster, slots_elsewhere
from graftlab.sweeps.launchers.base import Launcher, LaunchRequest, Workers
from graftlab.sweeps.slots import Slot

LAUNCH = "slurm"
"""Name of every launch on the cluster: what runs there works for whoever watches."""


@choice("slurm")
@dataclass(kw_only=True, slots=True)
class SlurmLauncher(Launcher):
    """`launcher=slurm`: each slot is a worker in an array job, with GPUs and cores of its own."""

    partition: str | None = None
    """Slurm partition; null leaves it to the cluster."""
    account: str | None = None
    """Whom the time is charged to."""
    time_minutes: int = 240
    """Time limit of a worker; one that reaches it saves, is queued again and goes on."""
    gpus_per_job: int | None = None
    """GPUs of a worker; null: one for each of trainer.devices, none on the processor."""
    cpus_per_job: int = 8
    """Cores of a worker."""
    memory_gb: float | None = None
    """Main memory of a worker; null leaves it to the cluster."""
    save_seconds: int = 120
    """How long before its time limit a worker is told to save."""
    requeues: int = 50
    """How often a worker at its time limit is queued again; preemptions do not count."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the worker starts, such as `module load cuda`."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch, by name: {constraint: a100, qos: low}."""
    cluster: str = "slurm"
    """slurm; or local, which tries the same way on this machine."""

    def __post_init__(self) -> None:
        Launcher.__post_init__(self)
        require_choice("launcher.cluster", self.cluster, ("slurm", "local"))
        require_range("launcher.time_minutes", self.time_minutes, least=1)
        require_range("launcher.gpus_per_job", self.gpus_per_job, least=0)
        require_range("launcher.cpus_per_job", self.cpus_per_job, least=1)
        require_range("launcher.memory_gb", self.memory_gb, above=0)
        require_range("launcher.save_seconds", self.save_seconds, least=10)
        require_range("launcher.requeues", self.requeues, least=0)
        options = {"partition": self.partition, "account": self.account}
        for key, value in [*options.items(), *((f"extra.{k}", v) for k, v in self.extra.items())]:
            if len(f"{key}{value}".splitlines()) > 1:
                raise ConfigError(f"launcher.{key} must be one line: sbatch runs the next one.")

    @property
    def launch_name(self) -> str:
        return LAUNCH

    def places(self, work: LaunchRequest) -> list[Slot]:
        return slots_elsewhere(self, work, name=self.cluster, cpus=self.cpus_per_job)

    def workers(self, work: LaunchRequest, slots: list[Slot], launch: str) -> Workers:
        return ArrayJobs(self, work, slots, launch)

    def parameters(self, work: LaunchRequest, name: str) -> dict[str, Any]:
        """What submitit is told of an agent's job."""
        on_gpu = work.accelerator in ("auto", "cuda")
        gpus = self.gpus_per_job
        slurm = {
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_setup": self.setup or None,
            "slurm_signal_delay_s": self.save_seconds,
            "slurm_additional_parameters": {"requeue": True, **self.extra},
            "mem_gb": self.memory_gb,
        }
        return {
            "name": f"graftlab-{name}"[:64],
            "timeout_min": self.time_minutes,
            "nodes": 1,
            "tasks_per_node": 1,
            "cpus_per_task": self.cpus_per_job,
            "gpus_per_node": (work.devices if on_gpu else 0) if gpus is None else gpus,
            **{key: value for key, value in slurm.items() if value is not None},
        }


class ArrayJobs(Cluster):
    """Node agents as jobs of Slurm, or of submitit's local executor."""

    def __init__(
        self, launcher: SlurmLauncher, work: LaunchRequest, slots: Sequence[Slot], launch: str
    ) -> None:
        super().__init__(work, slots, launch)
        self.launcher, self.work = launcher, work
        self.folder = self.ledger.folder.resolve() / "cluster"
        self.jobs: list[Any] = []
        self._ended: Any = None
        self.cancelled = False

    @property
    def parting(self) -> str:  # type: ignore[override]
        names = " ".join(self._identifiers())
        return (
            f"no longer watching; the workers go on ({self.launcher.cluster} jobs {names}). The "
            f"same line watches them again, `scancel {names}` ends them."
        )

    def begin(self) -> None:
        self.executor = self._executor()
        if self.launcher.cluster == "local":  # submitit cannot find its local processes again
            return
        from submitit import SlurmJob

        known = self.ledger.fact("cluster jobs") or []
        earlier = [SlurmJob(folder=self.folder, job_id=name) for name in known]
        self.jobs = [job for job in earlier if not job.done()]
        if self.jobs:
            say(f"{len(self.jobs)} workers of an earlier start are still on the cluster.")

    def submit(self, count: int) -> None:
        with self.executor.batch():
            jobs = [self.executor.submit(self.agent()) for _ in range(count)]
        self.jobs += jobs
        self.ledger.put("cluster jobs", [job.job_id for job in self.jobs])
        say(f"{count} workers queued: {' '.join(self._identifiers())} ({self.folder})")

    def present(self) -> int:
        for job in [job for job in self.jobs if job.done()]:
            self.jobs.remove(job)
            self._ended = job
            if job.state.startswith("CANCELLED"):
                self.cancelled = self.stopping = True
        return len(self.jobs)

    def last_words(self) -> str:
        texts = [] if self._ended is None else [self._ended.stderr(), self._ended.stdout()]
        said = next((text for text in texts if text), f"nothing; see {self.folder}")
        return "\n".join(said.splitlines()[-20:])

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Only this process leaves: the workers' time was queued for, and they need nobody."""
        self.stopping = True

    def poll(self) -> bool:
        """Workers that somebody has cancelled are not replaced: raises GraftlabError."""
        going = Cluster.poll(self)
        if self.cancelled:
            raise GraftlabError("The workers were cancelled; the same line submits new ones.")
        return going and not self.stopping

    def close(self) -> None:
        """Nothing is held that would have to be let go of."""

    def _identifiers(self) -> list[str]:
        return list(dict.fromkeys(job.job_id.partition("_")[0] for job in self.jobs))

    def _executor(self) -> Any:
        try:
            from submitit import AutoExecutor
        except ImportError:
            raise GraftlabError(
                "launcher=slurm needs submitit: pip install 'graftlab[slurm]'"
            ) from None
        cluster = self.launcher.cluster
        requeues = {f"{cluster}_max_num_timeout": self.launcher.requeues}
        try:
            executor = AutoExecutor(folder=self.folder, cluster=cluster, **requeues)
        except RuntimeError as problem:
            raise GraftlabError(
                f"launcher=slurm: {problem} Start it where sbatch works, or try it on this machine "
                "with launcher.cluster=local."
            ) from problem
        executor.update_parameters(**self.launcher.parameters(self.work, self.ledger.folder.name))
        return executor
