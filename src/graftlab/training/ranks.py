"""A run of several processes: torchrun starts them, each builds the run from the same file.

Hydra stays in the process the user started: the ranks read the finished specification, so they
cannot disagree about the run folder, and a sweep's job starts its ranks like any other run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import TYPE_CHECKING

from graftlab.choices import dump
from graftlab.errors import GraftlabError, Interrupted
from graftlab.tracking.folder import RunFolder, write_json
from graftlab.training.trainer import LAUNCHED

if TYPE_CHECKING:
    from graftlab.tasks.train import TrainSpec

SHUTDOWN_SECONDS = 600
"""How long a signalled process may take to end its step, validate and save."""


def launch(spec: TrainSpec, folder: RunFolder) -> None:
    """Run `spec` in `trainer.devices` processes of this machine and wait for them.

    SIGTERM and Ctrl-C are passed on. Raises Interrupted when the ranks stopped for a signal and
    GraftlabError when they failed; what they printed says why.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    file = folder.path / "ranks.json"
    write_json(file, dump(spec))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={spec.trainer.devices}",
        f"--shutdown-timeout={SHUTDOWN_SECONDS}", "-m", "graftlab.tasks.rank", str(file),
    ]  # fmt: skip
    environment = dict(os.environ)
    threads = spec.trainer.threads or max(1, (os.cpu_count() or 1) // spec.trainer.devices)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    environment[LAUNCHED] = "1"
    # In a session of its own: Ctrl-C reaches this process alone, which passes it on once.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(signal.SIGTERM)

    previous = {n: signal.signal(n, forward) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    file.unlink(missing_ok=True)
    if received:
        raise Interrupted("stopped by a signal; resume=auto goes on.", 128 + received[0])
    if code != 0 or not folder.finished:
        raise GraftlabError(
            f"The run's processes ended with code {code}; their messages are above. "
            "What was saved goes on with resume=auto."
        )
