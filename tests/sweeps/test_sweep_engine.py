"""A launch with workers that pretend: crashes, signals, two launches at once, retries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sweep_crew
from graftlab.errors import GraftlabError, Interrupted
from graftlab.sweeps.engine import launch, prepare
from graftlab.sweeps.jobs import Job
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.pool import Pool
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.source import Grid
from graftlab.sweeps.spec import Sweep
from sweep_crew import draft

CREW = (sweep_crew.__file__,)


def run(folder: Path, drafts, *, slots: int = 2, retries: int = 1, program=CREW, **more):
    ledger, _ = prepare(folder, Sweep(retries=retries))
    places = [Slot(f"cpu {i}") for i in range(slots)]
    return launch(
        ledger,
        Grid(list(drafts)),
        lambda name: Pool(ledger, name, places, retries, program=program),
        slots=slots,
        **more,
    )


def starts(folder: Path, job: Job) -> int:
    return len((folder / job.folder / "starts.txt").read_text().splitlines())


def test_every_job_is_done_once_and_nothing_again(tmp_path: Path) -> None:
    drafts = [draft(f"job {i}", score=i) for i in range(7)]
    ended = run(tmp_path, drafts)
    assert [(job.state, job.score) for job in ended.jobs] == [("done", float(i)) for i in range(7)]
    again = run(tmp_path, [*drafts, draft("new")])
    assert again.count("done") == 8
    assert {starts(tmp_path, job) for job in again.jobs} == {1}


def test_what_one_job_breaks_hurts_no_other(tmp_path: Path) -> None:
    acts = ["fine", "killed", "refused", "fine", "broken", "fine"]
    ended = run(tmp_path, [draft(f"{i} {act}", act=act) for i, act in enumerate(acts)])
    assert [job.state for job in ended.jobs] == [
        "done" if act == "fine" else "failed" for act in acts
    ]
    _, killed, refused, _, broken, _ = ended.jobs
    assert "out of memory" in killed.error
    assert refused.error == "no such thing"
    assert broken.error == "ZeroDivisionError: ours"
    reasons = [(tmp_path / j.folder / "error.txt").read_text() for j in (killed, refused, broken)]
    assert "signal 9" in reasons[0]
    assert "Traceback" not in reasons[1]
    assert "in perform" in reasons[2]
    # Crashes are tried again, refusals would only be repeated.
    assert [starts(tmp_path, job) for job in ended.jobs] == [1, 2, 1, 1, 2, 1]


def test_jobs_killed_together_are_tried_alone(tmp_path: Path) -> None:
    """None of them is known to be to blame, so none has lost its only try."""
    program = tmp_path / "together.py"
    program.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(sweep_crew.__file__).parent)!r})\n"
        "from graftlab.sweeps.claim import claim\n"
        "from graftlab.sweeps.__main__ import main\n"
        "from sweep_crew import Pretender\n"
        "class Together(Pretender):\n"
        "    def train(self, claimed):\n"
        "        if not claimed.job.alone:\n"
        "            asked = {'rules': self.rules, 'retries': self.retries}\n"
        "            others = [claim(self.ledger, self.launch, **asked) for _ in range(2)]\n"
        "            assert None not in others\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        super().train(claimed)\n"
        "sys.exit(main(worker=Together))\n"
    )
    drafts = [draft(f"job {i}") for i in range(3)]
    ended = run(tmp_path / "sweep", drafts, slots=1, retries=0, program=(str(program),))
    assert ended.count("done") == 3
    assert [(job.alone, job.attempts) for job in ended.jobs] == [(1, 0)] * 3


def test_two_launches_share_the_work(tmp_path: Path) -> None:
    drafts = [draft(f"job {i}") for i in range(12)]
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "import test_sweep_engine as t\n"
        "t.run(Path(sys.argv[1]), [t.draft(f'job {i}') for i in range(12)], slots=1)"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *paths])
    ended = run(tmp_path, drafts, slots=1)
    assert other.wait(60) == 0
    assert ended.count("done") == 12
    assert {starts(tmp_path, job) for job in ended.jobs} == {1}


def test_a_signal_saves_and_the_same_line_goes_on(tmp_path: Path) -> None:
    drafts = [draft("long", act="slow"), draft("later", act="slow")]
    watch = _signal_when_running(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, drafts, slots=1, watch=watch)
    assert stopped.value.exit_code == 143
    ledger = Ledger(tmp_path)
    assert [job.state for job in ledger.jobs()] == ["waiting", "waiting"]
    assert (tmp_path / ledger.jobs()[0].folder / "saved.txt").exists()
    assert [job.attempts for job in ledger.jobs()] == [0, 0]
    again = [draft("x"), draft("y")]  # the same jobs, as the line says them now
    assert run(tmp_path, again).count("done") == 2


def test_a_killed_launcher_leaves_no_orphan(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "import test_sweep_engine as t\n"
        "t.run(Path(sys.argv[1]), [t.draft('x', act='slow'), t.draft('y', act='slow')])"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    launcher = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *paths])
    ledger = Ledger(tmp_path)
    workers = _wait(lambda: _running(ledger) if len(_running(ledger)) == 2 else None)
    launcher.kill()
    launcher.wait()
    _wait(lambda: not any(_alive(pid) for pid in workers) or None)
    assert [job.state for job in ledger.jobs()] == ["waiting", "waiting"]  # saved on the way out
    ended = run(tmp_path, [draft("x"), draft("y")])
    assert ended.count("done") == 2


def test_workers_that_cannot_start_end_the_launch_with_their_last_words(tmp_path: Path) -> None:
    with pytest.raises(GraftlabError, match="ModuleNotFoundError"):
        run(tmp_path, [draft("x")], program=("-c", "import nothing_of_this_name"))
    assert Ledger(tmp_path).jobs()[0].state == "waiting"


def test_no_job_starts_after_the_timeout(tmp_path: Path) -> None:
    ended = run(tmp_path, [draft("x"), draft("y")], timeout=1e-6)
    assert [job.state for job in ended.jobs] == ["waiting", "waiting"]
    assert not list(tmp_path.glob("*/starts.txt"))
    assert run(tmp_path, [draft("x"), draft("y")]).count("done") == 2


def _signal_when_running(number: int):
    sent = []

    def watch(jobs: list[Job]) -> None:
        if not sent and any(job.progress for job in jobs):
            sent.append(number)
            os.kill(os.getpid(), number)

    return watch


def _running(ledger: Ledger) -> list[int]:
    if not ledger.path.exists():
        return []
    return [int(job.worker.rpartition(":")[2]) for job in ledger.jobs() if job.progress]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait(look, *, seconds: float = 40.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")
