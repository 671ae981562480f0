"""Whether the jobs of a sweep train faster together: measured in a process of its own.

Run by `launcher=auto`:  python -m graftlab.sweeps.joint_benchmark SWEEP JOB JOB...

The launching process stays small this way; when it is gone, this one leaves too. The last
line of the output is JSON: whether (null: it could not be measured), and why; lines before it that
begin with `STAGE` say how far it is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from graftlab.console import say
from graftlab.errors import GraftlabError
from graftlab.parent_watch import leave_with_parent
from graftlab.recipes.dataset import ensure_dataset
from graftlab.registry import restore
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.slots import Slot
from graftlab.tracking.folder import RunFolder
from graftlab.training.joint.groups import JointJob, group
from graftlab.training.spec import TrainSpec

STAGE = "stage: "
PROGRAM = ("-m", "graftlab.sweeps.joint_benchmark")


def measure_joint(
    ledger: Ledger, launch: str, slot: Slot, *, at_once: int, search: bool = False
) -> tuple[bool, str]:
    """Whether workers should train up to `at_once` jobs jointly, and why.

    What was measured is settled in the ledger, as it decides the last bits of results; what could
    not be is asked anew by the next launch. `search`: the jobs are not known yet.
    """
    known = ledger.fact("joint")
    if known is None:
        if search:
            return False, "a search starts jobs as others end"
        together, why = _measured(ledger, launch, slot, at_once=at_once)
        if together is None:
            return False, why
        known = ledger.settled_fact("joint", (together, why))
    together, why = known
    return bool(together), str(why)


def _measured(ledger: Ledger, launch: str, slot: Slot, *, at_once: int) -> tuple[bool | None, str]:
    """What was found, and in words; None where nothing was."""
    alike = _largest_group(ledger, launch)
    if len(alike) < 2:
        return None, "no two jobs that wait can share a base"
    largest = alike[:at_once]
    if len(largest) < 2:
        return None, "every worker has one job at most"
    try:
        ensure_dataset(
            restore(TrainSpec, ledger.spec(largest[0])).data
        )  # here, so that people see it
    except GraftlabError as error:
        return None, f"training jointly cannot be measured: {error}"
    say(
        f"launcher=auto: measuring whether up to {len(largest)} jobs train faster together on one "
        "base; launcher=local or launcher=joint skips this"
    )
    command = [sys.executable, *PROGRAM, str(ledger.folder), *map(str, largest)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # it closes with this process, however that ends
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **slot.environment},
        ) as process,
    ):
        assert process.stdout is not None
        last_line = ""
        for line in process.stdout:
            if line.startswith(STAGE):
                say(f"launcher=auto: {line.removeprefix(STAGE).strip()}")
            last_line = line.strip() or last_line
        if process.wait() != 0:
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:] or ["no reason given"]
            return None, f"training jointly could not be measured ({last[0]})"
    together, why = json.loads(last_line)
    return together, why


def _largest_group(ledger: Ledger, launch: str) -> list[int]:
    """Numbers of the jobs of the largest group that can share a base."""
    numbers = [job.number for job in ledger.jobs(launch) if job.state == "waiting"]
    specs = [restore(TrainSpec, ledger.spec(number)) for number in numbers]
    groups = group(specs)
    largest = max(groups, key=len) if groups else []
    return [numbers[index] for index in largest]


def main(folder: str, *numbers: str) -> int:
    """Measure, and print what was found."""
    from graftlab.training.joint.measure import faster_together

    ledger = Ledger(Path(folder))
    with tempfile.TemporaryDirectory() as scratch:
        jobs = []
        for number in map(int, numbers):
            spec = restore(TrainSpec, ledger.spec(number))
            spec.run_dir = str(Path(scratch) / str(number))
            jobs.append(JointJob(spec=spec, folder=RunFolder(Path(spec.run_dir))))
        found: tuple[bool | None, str]
        try:
            found = faster_together(jobs, tell=_tell)
        except GraftlabError as error:
            found = None, f"training jointly cannot be measured: {error}"
    print(json.dumps(found))
    return 0


def _tell(stage: str) -> None:
    print(f"{STAGE}{stage}", flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # an exception, so that scratch folders are removed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    leave_with_parent()
    sys.exit(main(*sys.argv[1:]))
