"""Runs that die: forks a child per command, which trains until it is killed at a chosen event.

A process of its own that reads requests, so that the heavy imports are paid once for many deaths:

    python nursery.py    {"spec": ..., "commands": [{"run_dir": ..., "kill_at": 17}], "log": ...}

Events are numbered over the whole life of a child: every forward pass of the base (training,
validation, samples), every file about to be renamed into place, and every one that just was. Prints
one JSON line per command: how the child ended and how many events it saw.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
from pathlib import Path


def child(spec_data: dict, command: dict, report: Path) -> None:
    import graftlab.apple.base
    import graftlab.files.building as building
    import graftlab.files.checksums as checksums
    import graftlab.files.writing as writing
    import graftlab.models.hf_base
    from graftlab.errors import Interrupted
    from graftlab.registry import restore
    from graftlab.training.spec import TrainSpec
    from graftlab.training.start import run

    seen: list[str] = []

    def event(name: str) -> None:
        seen.append(name)
        report.write_text(json.dumps(seen))
        if len(seen) == command.get("kill_at"):
            os.kill(os.getpid(), command.get("signal", signal.SIGKILL))

    def watched(function, before: str, after: str | None = None):
        def call(*args, **kwargs):
            event(before)
            result = function(*args, **kwargs)
            if after:
                event(after)
            return result

        return call

    for base in (graftlab.models.hf_base.HFBase, graftlab.apple.base.AFMBase):
        base.hidden = watched(base.hidden, "forward")
    renamed, counted = writing.publish, watched(writing.publish, "publish", "published")

    def publish(temporary: Path, path: Path) -> None:
        """Counted in the run folder alone: a cache is written by the first child only."""
        (counted if command["run_dir"] in map(str, path.parents) else renamed)(temporary, path)

    writing.publish = building.publish = checksums.publish = publish
    changes = {k: v for k, v in command.items() if k not in ("kill_at", "signal")}
    try:
        run(restore(TrainSpec, {**spec_data, **changes}))
    except Interrupted as stop:
        os._exit(stop.exit_code)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    # Everything a child needs is imported and measured once, and no child looks for garbage in it.
    import graftlab.adapters.initial
    import graftlab.registry
    import graftlab.training.run  # noqa: F401
    from graftlab.training.device import matrix_peak
    from graftlab.training.precision import Precision, resolve

    device = torch.device("cpu")
    for name in ("fp32", "auto"):
        matrix_peak(device, resolve(Precision(name=name), device).base_dtype)
    os.fsync = lambda descriptor: None  # children are killed; the power stays on
    gc.freeze()
    out = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        os.dup2(log, 1)  # what the runs print must not mix with the answers
        os.close(log)
        for command in request["commands"]:
            os.write(out, (json.dumps(life(request["spec"], command)) + "\n").encode())


def life(spec: dict, command: dict) -> dict:
    """One child from birth to end: its exit code and its events."""
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "events.json"
        process = os.fork()
        if process == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # requests are not for it to read
            # PyTorch makes its pool anew after a fork, and fails where two threads do so at once.
            torch.set_num_threads(1)
            child(spec, command, report)
        status = os.waitpid(process, 0)[1]
        events = json.loads(report.read_text()) if report.exists() else []
    return {"code": os.waitstatus_to_exitcode(status), "events": events}


if __name__ == "__main__":
    main()
