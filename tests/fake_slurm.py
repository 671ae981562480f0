"""A cluster of one node: `sbatch`, `sacct`, `scontrol` and `scancel` on the PATH, as submitit uses
them. Arrays run their tasks side by side, each in a session of its own.

`install(FOLDER)` writes the commands; jobs are files in FOLDER. A task's processes are told to save
and are queued again by `interrupt`, and die with their node by `kill`.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "sacct", "scontrol", "scancel", "srun")


def install(folder: Path) -> Path:
    """Write the commands into `folder/bin`, which belongs in front of the PATH."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    for name in COMMANDS:
        command = bin_folder / name
        call = " ".join(map(shlex.quote, [sys.executable, __file__, str(folder), name]))
        command.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        command.chmod(0o755)
    return bin_folder


def tasks(folder: Path) -> dict[str, int]:
    """Job and task, `7_0`, -> the process that runs it; without those that ended."""
    found = {path.stem: int(path.read_text()) for path in folder.glob("*.pid")}
    return {name: pid for name, pid in found.items() if _alive(pid)}


def interrupt(folder: Path, name: str) -> None:
    """What Slurm does shortly before the time limit: every process of the task is told."""
    _signal(folder, name, signal.SIGUSR2)


def preempt(folder: Path, name: str) -> None:
    """What Slurm does when others are to have the node: first one signal, then the other."""
    _signal(folder, name, signal.SIGTERM)
    time.sleep(3)
    _signal(folder, name, signal.SIGUSR2)


def kill(folder: Path, name: str) -> None:
    """What a node does that loses its power."""
    _signal(folder, name, signal.SIGKILL)


def _signal(folder: Path, name: str, number: int) -> None:
    import psutil

    supervisor = psutil.Process(tasks(folder)[name])
    for process in supervisor.children(recursive=True):
        process.send_signal(number)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sbatch(folder: Path, script: str) -> None:
    text = Path(script).read_text()
    number = len(list(folder.glob("*.sbatch"))) + 1
    (folder / f"{number}.sbatch").write_text(text)
    array = re.search(r"#SBATCH --array=0-(\d+)", text)
    names = [f"{number}_{i}" for i in range(int(array[1]) + 1)] if array else [str(number)]
    for name in names:
        arguments = [sys.executable, __file__, str(folder), "supervise", name]
        process = subprocess.Popen(
            arguments, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        (folder / f"{name}.pid").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def supervise(folder: Path, name: str) -> None:
    """Run one task, again as often as it was requeued."""
    number, _, index = name.partition("_")
    text = (folder / f"{number}.sbatch").read_text()
    command = shlex.split(text.strip().splitlines()[-1])
    position = next(i for i, word in enumerate(command) if "python" in Path(word).name)
    environment = {**os.environ, "SLURM_JOB_ID": number, "SUBMITIT_EXECUTOR": "slurm"}
    environment |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    requeued = folder / f"{name}.requeue"
    files = [_file(command, option, name) for option in ("--output", "--error")]
    with files[0].open("ab") as output, files[1].open("ab") as error:
        while True:
            requeued.unlink(missing_ok=True)
            subprocess.run(command[position:], env=environment, stdout=output, stderr=error)
            if not requeued.exists():
                return
            with (folder / f"{name}.again").open("a") as starts:
                starts.write("again\n")


def _file(command: list[str], option: str, name: str) -> Path:
    """Where srun writes: `%j_%t_log.out`, in an array `%A_%a_%t_log.out`."""
    number, _, index = name.partition("_")
    text = command[command.index(option) + 1]
    for mark, value in {"%j": number, "%A": number, "%a": index, "%t": "0"}.items():
        text = text.replace(mark, value)
    return Path(text)


def scontrol(folder: Path, verb: str, name: str) -> None:
    assert verb == "requeue"
    (folder / f"{name}.requeue").touch()


def sacct(folder: Path, *arguments: str) -> None:
    print("JobID|State|NodeList")
    wanted = {arguments[i + 1] for i, word in enumerate(arguments) if word == "-j"}
    running = tasks(folder)
    for path in folder.glob("*.pid"):
        if path.stem.partition("_")[0] in wanted:
            ended = "CANCELLED by 0" if path.with_suffix(".cancelled").exists() else "NODE_FAIL"
            print(f"{path.stem}|{'RUNNING' if path.stem in running else ended}|here")


def scancel(folder: Path, *names: str) -> None:
    for name, pid in tasks(folder).items():
        if name in names or name.partition("_")[0] in names:
            for number in (signal.SIGTERM, signal.SIGKILL):
                (folder / f"{name}.cancelled").touch()
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(pid, number)
                time.sleep(0.2)


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])
