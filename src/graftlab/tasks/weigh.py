"""Whether the jobs of a sweep train faster together: measured in a process of its own.

Run by `launcher=auto`:  python -m graftlab.tasks.weigh SWEEP LAUNCH

The launching process stays small this way. The last line of the output is JSON: whether, and why.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from graftlab.choices import restore
from graftlab.errors import GraftlabError
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.slots import Slot
from graftlab.tasks.train import TrainSpec
from graftlab.tracking.folder import RunFolder
from graftlab.training.joint.groups import Job, group


def weigh(ledger: Ledger, launch: str, slot: Slot, *, at_once: int) -> tuple[bool, str]:
    """Whether workers should train up to `at_once` jobs jointly, and why.

    Settled in the ledger by the first launch and kept, as it decides the last bits of results.
    """
    known = ledger.fact("joint")
    if known is None:
        known = ledger.settle("joint", _measured(ledger, launch, slot, at_once=at_once))
    together, why = known
    return bool(together), str(why)


def _measured(ledger: Ledger, launch: str, slot: Slot, *, at_once: int) -> tuple[bool, str]:
    largest = _largest_group(ledger, launch)[:at_once]
    if len(largest) < 2:
        return False, "no two jobs of it can share a base"
    command = [sys.executable, "-m", "graftlab.tasks.weigh", str(ledger.folder)]
    done = subprocess.run(
        [*command, *map(str, largest)],
        env={**os.environ, **slot.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        return False, f"training jointly could not be measured ({last[0]})"
    together, why = json.loads(done.stdout.strip().splitlines()[-1])
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
            jobs.append(Job(spec=spec, folder=RunFolder(Path(spec.run_dir))))
        try:
            found = faster_together(jobs)
        except GraftlabError as error:
            found = False, f"training jointly cannot be measured: {error}"
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
