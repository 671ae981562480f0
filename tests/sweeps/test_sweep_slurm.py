"""Workers as array jobs: on a cluster that only pretends, and through submitit's local executor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import fake_slurm
import sweep_crew
from graftlab.errors import ConfigError, GraftlabError, Interrupted
from graftlab.sweeps.launchers.slurm import SlurmLauncher
from graftlab.sweeps.ledger import Job, Ledger
from graftlab.tracking.history import TIMES, History
from graftlab.training.start import run
from sweep_crew import draft
from sweep_runs import jobs_of, run_sweep, small_run

CREW = (sweep_crew.__file__,)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder of a cluster, which is emptied at the end."""
    from submitit import SlurmJob
    from submitit.slurm.slurm import SlurmInfoWatcher

    folder = tmp_path / "cluster"
    monkeypatch.setattr(
        SlurmJob, "watcher", SlurmInfoWatcher(delay_s=600)
    )  # knows other tests' jobs
    monkeypatch.setenv("PATH", f"{fake_slurm.install(folder)}{os.pathsep}{os.environ['PATH']}")
    yield folder
    fake_slurm.scancel(folder, *fake_slurm.tasks(folder))


def on_cluster(folder: Path, drafts, **settings):
    launcher = SlurmLauncher(slots=2, cpus_per_job=1, partition="short", extra={"qos": "low"})
    return run_sweep(folder, drafts, launcher, **{"program": CREW, **settings})


def starts(folder: Path, job: Job) -> int:
    return len((folder / job.folder / "starts.txt").read_text().splitlines())


def test_an_array_of_workers_does_every_job_once(cluster, tmp_path) -> None:
    ended = on_cluster(tmp_path / "sweep", [draft(f"job {i}", score=i) for i in range(5)])
    assert [(job.state, job.score) for job in ended.jobs] == [("done", float(i)) for i in range(5)]
    assert {starts(ended.folder, job) for job in ended.jobs} == {1}
    (script,) = cluster.glob("*.sbatch")
    text = script.read_text()
    for option in ("array=0-1%2", "partition=short", "qos=low", "requeue", "signal=USR2@120"):
        assert f"#SBATCH --{option}" in text
    assert "#SBATCH --time=240" in text
    assert "#SBATCH --gpus-per-node=0" in text


def test_a_worker_whose_time_is_up_saves_and_goes_on_when_requeued(cluster, tmp_path) -> None:
    interrupted = []

    def watch(jobs: list[Job], workers) -> None:
        if not interrupted and all(job.progress for job in jobs):
            interrupted.extend(fake_slurm.tasks(cluster))
            for name in interrupted:
                fake_slurm.interrupt(cluster, name)
        elif interrupted and all(
            (workers.ledger.folder / job.folder / "saved.txt").exists() for job in jobs
        ):
            act(workers.ledger, "fine")

    drafts = [draft(f"job {i}", act="slow") for i in range(2)]
    ended = on_cluster(tmp_path / "sweep", drafts, watch=watch)
    assert ended.count("done") == 2
    assert [job.attempts for job in ended.jobs] == [0, 0]
    assert len(list(cluster.glob("*.again"))) == 2  # queued again, not submitted anew
    assert len(list(cluster.glob("*.sbatch"))) == 1


def test_the_job_of_a_dead_node_is_taken_over(cluster, tmp_path) -> None:
    killed = []

    def watch(jobs: list[Job], workers) -> None:
        if not killed and jobs[0].progress:
            killed.append(next(iter(fake_slurm.tasks(cluster))))
            act(workers.ledger, "fine")
            fake_slurm.kill(cluster, killed[0])

    ended = on_cluster(tmp_path / "sweep", [draft("long", act="slow")], watch=watch)
    assert killed
    assert ended.count("done") == 1
    assert starts(ended.folder, ended.jobs[0]) == 2
    assert len(list(cluster.glob("*.sbatch"))) == 2


def test_a_killed_parent_leaves_the_workers_at_work_and_finds_them_again(
    cluster, tmp_path, capsys
) -> None:
    folder = tmp_path / "sweep"
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "import test_sweep_slurm as t\n"
        "t.on_cluster(Path(sys.argv[1]), [t.draft(f'job {i}', act='slow') for i in range(2)])"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    parent = subprocess.Popen([sys.executable, "-c", program, str(folder), *paths])
    ledger = Ledger(folder)
    wait(lambda: ledger.path.exists() and [job for job in ledger.jobs() if job.progress][1:])
    parent.kill()
    parent.wait()
    running = fake_slurm.tasks(cluster)
    assert len(running) == 2
    finished = []

    def watch(jobs: list[Job], workers) -> None:
        if not finished:
            assert [job.state for job in jobs][:2] == ["running", "running"]
            finished.append(True)
            act(workers.ledger, "fine")
            for name in fake_slurm.tasks(cluster):
                fake_slurm.interrupt(cluster, name)  # ends the slow act; they do not start anew

    drafts = [*(draft(f"job {i}", act="slow") for i in range(2)), draft("new")]
    ended = on_cluster(folder, drafts, watch=watch)
    assert ended.count("done") == 3
    assert "2 workers of an earlier start are still on the cluster" in capsys.readouterr().out
    assert len(list(cluster.glob("*.sbatch"))) == 1


def test_ctrl_c_only_stops_watching(cluster, tmp_path) -> None:
    sent = []

    def watch(jobs: list[Job], workers) -> None:
        if not sent and jobs[0].progress:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"workers go on .*`scancel 1` ends them"):
        on_cluster(tmp_path / "sweep", [draft("long", act="slow")], watch=watch)
    assert Ledger(tmp_path / "sweep").jobs()[0].state == "running"
    assert len(fake_slurm.tasks(cluster)) == 1


def test_workers_come_for_jobs_that_were_given_up_once_nothing_is_pruned(cluster, tmp_path) -> None:
    ended = on_cluster(tmp_path / "sweep", [draft("x"), draft("y")])
    ledger = Ledger(ended.folder)
    ledger.reach(0, (10, 5), 1.0)
    ledger.end(0, "pruned", launch="slurm")
    again = on_cluster(tmp_path / "sweep", [draft("x"), draft("y")])
    assert again.count("done") == 2
    assert [starts(again.folder, job) for job in again.jobs] == [2, 1]


def test_cancelled_workers_are_not_replaced(cluster, tmp_path) -> None:
    def watch(jobs: list[Job], workers) -> None:
        if jobs[0].progress and fake_slurm.tasks(cluster):
            subprocess.run(["scancel", "1"], check=True)

    with pytest.raises(GraftlabError, match="were cancelled"):
        on_cluster(tmp_path / "sweep", [draft("long", act="slow")], watch=watch)
    assert len(list(cluster.glob("*.sbatch"))) == 1
    assert on_cluster(tmp_path / "sweep", [draft("long")]).count("done") == 1


def test_preemption_signals_the_worker_first_and_is_still_requeued(cluster, tmp_path) -> None:
    seen = []

    def watch(jobs: list[Job], workers) -> None:
        if not seen and jobs[0].progress:
            seen.extend(fake_slurm.tasks(cluster))
            act(workers.ledger, "fine")
            fake_slurm.preempt(cluster, seen[0])

    ended = on_cluster(tmp_path / "sweep", [draft("long", act="slow")], watch=watch)
    assert ended.count("done") == 1
    assert (ended.folder / ended.jobs[0].folder / "saved.txt").exists()
    assert len(list(cluster.glob("*.sbatch"))) == len(list(cluster.glob("*.again"))) == 1


def test_workers_that_cannot_work_end_the_launch_with_their_last_words(cluster, tmp_path) -> None:
    with pytest.raises(GraftlabError, match="ModuleNotFoundError"):
        on_cluster(tmp_path / "sweep", [draft("x")], program=("-c", "import nothing_like_it"))
    assert Ledger(tmp_path / "sweep").jobs()[0].state == "waiting"


def test_workers_of_a_search_leave_when_nobody_watches(cluster, tmp_path, monkeypatch) -> None:
    ended = on_cluster(tmp_path / "sweep", [draft("x")])
    ledger = Ledger(ended.folder)
    with ledger.writing() as db:  # as where the parent was killed before it had entered all
        db.execute("DELETE FROM facts WHERE key LIKE 'closed %'")
    worker = sweep_crew.Pretender(ledger, "slurm")
    assert not worker._over()
    ledger.put("watched slurm", time.time() - 1000)
    assert worker.work() == 0


def test_without_a_cluster_the_message_names_the_way_to_try_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GraftlabError, match=r"launcher.cluster=local"):
        on_cluster(tmp_path / "sweep", [draft("x")])


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="launcher.time_minutes=0"):
        SlurmLauncher(time_minutes=0)
    with pytest.raises(ConfigError, match=r"launcher.cluster=slrum .*Did you mean `slurm`"):
        SlurmLauncher(cluster="slrum")


@pytest.mark.slow
def test_real_jobs_preempted_on_the_way_end_like_runs_left_alone(tmp_path) -> None:
    import psutil

    base = small_run(tmp_path / "given")
    preempted = []

    def watch(jobs: list[Job], workers) -> None:
        if not preempted and any(job.progress.get("step", 0) >= 2 for job in jobs):
            for job in workers.jobs:
                controller = psutil.Process(int(job.job_id))
                preempted.extend(controller.children())
            for task in preempted:
                task.send_signal(signal.SIGUSR2)

    jobs = jobs_of(replace(base, max_steps=60, epochs=1), (1e-3, 5e-3))
    launcher = SlurmLauncher(slots=2, cpus_per_job=1, cluster="local")
    ended = run_sweep(tmp_path / "sweep", jobs, launcher, watch=watch)
    assert len(preempted) == 2
    assert ended.count("done") == 2, [job.error for job in ended.jobs]
    assert [job.attempts for job in ended.jobs] == [0, 0]
    alone = tmp_path / "alone"
    run(replace(base, max_steps=60, epochs=1, lr=5e-3, run_dir=str(alone)))
    there = ended.folder / ended.jobs[1].folder
    scores = [json.loads((d / "result.json").read_text())["score"] for d in (alone, there)]
    assert scores[0] == scores[1] == ended.jobs[1].score
    logs = [
        [
            {k: v for k, v in row.items() if k not in TIMES}
            for row in History(d / "train_log.csv").rows
        ]
        for d in (alone, there)
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 61


def act(ledger: Ledger, name: str) -> None:
    with ledger.writing() as db:
        db.execute("UPDATE jobs SET spec = ?", (json.dumps({"act": name, "score": 1.0}),))


def wait(holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)
