"""Forks a child for each command and kills it at a chosen operation on a file.

Run as a script, so that the heavy imports are paid once for many deaths:

    python deathbed.py ROOT COMMANDS.json    [{"does": "train", "folder": ..., "kill_at": 17}, ...]

Operations are those that change what is on disk: opening to write, renaming, removing, making a
folder, truncating, syncing, opening a database. Prints a JSON line per command: the exit code, and
the operations seen.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
NEEDED = (
    *("lightning.pytorch", "peft", "rensa", "sweep_runs"),
    *("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
    *("transformers.models.qwen2.modeling_qwen2", "transformers.models.qwen2.tokenization_qwen2"),
    *("graftlab.adapters.peft", "graftlab.apple.exports.verify", "graftlab.models.hf_base"),
    *(
        "graftlab.pages",
        "graftlab.verbs.export",
        "graftlab.recipes.prepare",
        "graftlab.training.run",
    ),
)
"""What a child needs is imported once, before it is forked."""
NOT_OURS = ("/dev", "/proc")


def train(root: Path, folder: Path) -> None:
    from graftlab.training.start import run

    run(replace(_run(root), run_dir=str(folder / "run"), resume="auto"))


def joint(root: Path, folder: Path) -> None:
    from sweep_runs import jobs_of, sweep_here

    ended = sweep_here(folder / "sweep", jobs_of(_run(root), [1e-3, 3e-3]), together=2)
    assert ended.count("done") == 2, [(job.state, job.error) for job in ended.jobs]


def prepare(root: Path, folder: Path) -> None:
    from graftlab.recipes.prepare import prepare as make
    from graftlab.recipes.sources import SourceSpec
    from graftlab.recipes.spec import PrepareSpec
    from graftlab.recipes.split import Split

    source = SourceSpec(files=str(root / "train.jsonl"))
    make(
        PrepareSpec(sources={"core": source}, split=Split(valid=0.2), out=str(folder / "prepared"))
    )


def export(root: Path, folder: Path) -> None:
    from graftlab.exports.peft import Peft
    from graftlab.verbs.export import ExportSpec, run

    place = str(folder / "export")
    run(
        ExportSpec(
            adapter=str(root / "whole-train" / "run"), target=Peft(), out=place, overwrite=True
        )
    )


DOES = {"train": train, "joint": joint, "prepare": prepare, "export": export}


def _run(root: Path) -> Any:
    from graftlab.training.checkpoint import Checkpointing
    from training_spec import small_spec

    return replace(small_spec(root), checkpoint=Checkpointing(every_steps=1), max_steps=3)


def child(root: Path, command: dict[str, Any], report: int) -> None:
    import torch

    # PyTorch makes its pool anew after a fork, and fails where two threads do so at once.
    torch.set_num_threads(1)
    seen = 0
    mine = os.getpid()

    def happened() -> None:
        nonlocal seen
        if os.getpid() != mine:
            return
        seen += 1
        if seen == command.get("kill_at"):
            os.pwrite(report, str(seen).encode(), 0)
            os.kill(mine, signal.SIGKILL)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = given
            writes = (
                bool(flags & (os.O_WRONLY | os.O_RDWR)) if mode is None else set(mode) & set("wax+")
            )
            if writes and not str(path).startswith(NOT_OURS):
                happened()
        elif event in CHANGES or (event == "sqlite3.connect"):
            happened()

    def fsync(number: int) -> None:
        happened()  # and no more: whoever is killed loses nothing that the system has

    folder = Path(command["folder"])
    folder.mkdir(exist_ok=True)
    os.environ["GRAFTLAB_CACHE"] = str(folder / "cache")  # it is written, and killed in, each time
    os.fsync = fsync
    sys.addaudithook(hook)
    try:
        DOES[command["does"]](root, folder)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os.pwrite(report, str(seen).encode(), 0)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    for module in NEEDED:
        importlib.import_module(module)
    root = Path(sys.argv[1])
    commands = json.loads(Path(sys.argv[2]).read_text())
    out = os.dup(1)
    os.dup2(2, 1)  # what the commands print must not mix with the answers
    for command in commands:
        with tempfile.TemporaryFile() as report:
            process = os.fork()
            if process == 0:
                child(root, command, report.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            seen = int(os.pread(report.fileno(), 20, 0) or b"0")
        os.write(out, (json.dumps({"code": code, "seen": seen}) + "\n").encode())


if __name__ == "__main__":
    main()
