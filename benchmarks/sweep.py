"""Twelve jobs, lr x rank, on the embedded demo: what people do, and what graftlab does.

    fresh     a new process for every job, one after the other, as a shell loop does
    one       all jobs in one process, one after the other, on one loaded base
    local     worker processes, each with its base loaded
    joint     adapters trained together on one base
    asha      local, with jobs that fall behind given up
    both      joint, with jobs that fall behind given up

All train the same jobs; reported are wall-clock, the winner and its validation loss, and the memory
of all processes at the worst moment. The first two train one job after the other, all of the same
number of steps, so `--timed 4` trains four of them and counts the others at their mean.
`--overhead` measures the engine itself, on jobs that do nothing.

Run as:
    python benchmarks/sweep.py                         # about an hour on two cores
    python benchmarks/sweep.py --timed 4               # forty minutes
    python benchmarks/sweep.py --only fresh asha --epochs 1 --limit 100
    python benchmarks/sweep.py --overhead
    python benchmarks/sweep.py --write                 # keep the table in results/
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arena import _processor, publish

ROOT = Path(__file__).parents[1]
RATES = ("5e-4", "1e-3", "2e-3", "5e-3")
RANKS = ("4", "8", "16")
SWEPT = [f"lr={','.join(RATES)}", f"lora.rank={','.join(RANKS)}"]
TRAIN = [sys.executable, str(ROOT / "train.py")]
WAYS = ("fresh", "one", "local", "joint", "asha", "both")
SEQUENCES = ("fresh", "one")
"""The ways that train one job after the other."""


@dataclass(slots=True)
class Outcome:
    """How one way did."""

    seconds: float
    winner: str
    score: float
    trained: int
    memory_mb: float
    """Resident memory of all processes together, at its largest."""


def measure(way: str, words: list[str], folder: Path, *, timed: int) -> Outcome:
    """Run the sweep one way, in `folder`; of the jobs in sequence only `timed`."""
    began, clock = time.monotonic(), time.time()
    with Memory() as memory:
        if way == "fresh":
            for rate, rank in spread(timed):
                place = folder / f"lr={rate} lora.rank={rank}"
                run(TRAIN, [f"lr={rate}", f"lora.rank={rank}", *words], place)
        elif way == "one":
            program = [sys.executable, str(Path(__file__).resolve()), "--in-one", str(timed)]
            run(program, words, folder)
        else:
            launcher = {"asha": "local", "both": "joint"}.get(way, way)
            more = [f"launcher={launcher}"]
            more += ["sweep.pruner=asha"] if way in ("asha", "both") else []
            command = ["-m", *SWEPT, *words, *more, f"hydra.sweep.dir={folder}"]
            subprocess.run([*TRAIN, *command], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    if way in SEQUENCES:
        seconds = in_sequence(clock, folder)
    results = {file.parent: json.loads(file.read_text()) for file in folder.glob("*/result.json")}
    best = min(results, key=lambda place: results[place]["score"])
    return Outcome(
        seconds, named(best), results[best]["score"], len(results), memory.largest / 2**20
    )


def spread(count: int) -> list[tuple[str, str]]:
    """`count` of the (rate, rank) pairs, spread over both."""
    pairs = [(rate, rank) for rate in RATES for rank in RANKS]
    if count >= len(pairs):
        return pairs
    return [(RATES[i % len(RATES)], RANKS[i % len(RANKS)]) for i in range(count)]


def in_sequence(clock: float, folder: Path) -> float:
    """Seconds that all jobs take one after the other: those that ran, the others at their mean.

    The first counts once, as it may hold the start of the process for all.
    """
    ends = sorted(file.stat().st_mtime for file in folder.glob("*/result.json"))
    first, later = ends[0] - clock, ends[-1] - ends[0]
    return first + later / (len(ends) - 1) * (len(RATES) * len(RANKS) - 1)


def run(command: list[str], words: list[str], place: Path) -> None:
    key = "hydra.run.dir" if command is TRAIN else "out"
    subprocess.run([*command, *words, f"{key}={place}"], check=True, stdout=subprocess.DEVNULL)


def in_one(words: list[str]) -> None:
    """All jobs in this process, as Hydra's basic launcher runs them."""
    from graftlab.cli.compose import build, compose
    from graftlab.training.start import run as train

    timed, *words, out = words
    folder = Path(out.partition("=")[2])
    for rate, rank in spread(int(timed)):
        cfg = compose("train", [f"lr={rate}", f"lora.rank={rank}", *words, "run_dir=x"])
        spec = build(cfg).training()
        spec.run_dir = str(folder / f"lr={rate} lora.rank={rank}")
        train(spec)


def named(folder: Path) -> str:
    """The job in a folder, by what its own configuration says."""
    import yaml

    config = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
    return f"lr={config['lr']:g} rank={config['lora']['rank']}"


class Memory:
    """Watches the resident memory of this process's descendants while the block runs."""

    def __enter__(self) -> Memory:
        self.largest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.largest = max(self.largest, descendants_bytes(os.getpid()))


def descendants_bytes(root: int) -> float:
    """Resident bytes of all processes below `root` (Linux)."""
    parents, sizes = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            sizes[int(folder.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            parents[int(folder.name)] = int(fields[1])
        except (OSError, IndexError):
            continue
    family = {root}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return float(sum(sizes[child] for child in family - {root}))


def overhead(jobs: int = 500) -> list[str]:
    """Jobs that do nothing: what ledger and launcher cost, and the launcher's own memory."""
    import resource

    from graftlab.sweeps.engine import launch, prepare
    from graftlab.sweeps.jobs import NewJob
    from graftlab.sweeps.pool import Pool
    from graftlab.sweeps.slots import Slot
    from graftlab.sweeps.source import Grid
    from graftlab.sweeps.spec import Sweep

    drafts = [
        NewJob(identity=str(i), label=f"job{i}", swept={"x": str(i)}, spec={}) for i in range(jobs)
    ]
    with tempfile.TemporaryDirectory() as folder:
        ledger, _ = prepare(Path(folder), Sweep())
        slots = [Slot("only")]
        began = time.monotonic()
        program = (str(Path(__file__).resolve()), "--pretend")
        ended = launch(
            ledger,
            Grid(drafts),
            lambda name: Pool(ledger, name, slots, 0, program=program),
            slots=1,
        )
        seconds = time.monotonic() - began
    assert ended.count("done") == jobs
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return [
        f"{jobs} jobs that do nothing, one worker: {1000 * seconds / jobs:.0f} ms a job, the start "
        f"of the worker included; the launching process had {peak:.0f} MiB at its largest.",
    ]


def pretend(sweep: str, name: str) -> int:
    """A worker whose jobs take no time."""
    from graftlab.sweeps import __main__ as worker

    class Pretender(worker.Worker):
        def perform(self, claimed: Any, folder: Path) -> float:
            return 1.0

    return worker.main([sweep, name], worker=Pretender)


def table(outcomes: dict[str, Outcome]) -> list[str]:
    lines = [
        "| way | seconds | times faster | best configuration | validation loss | jobs trained "
        "| memory, MiB |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    slowest = next(iter(outcomes.values())).seconds
    for way, found in outcomes.items():
        lines.append(
            f"| {way} | {found.seconds:,.0f} | **{slowest / found.seconds:.2f}** | {found.winner} "
            f"| {found.score:.4f} | {found.trained} | {found.memory_mb:,.0f} |"
        )
    return [*lines, ""]


def main() -> int:
    if sys.argv[1:2] == ["--pretend"]:
        return pretend(*sys.argv[2:4])
    if sys.argv[1:2] == ["--in-one"]:
        in_one(sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=int, help="conversations of the demo, for a quick look")
    parser.add_argument(
        "--timed", type=int, default=12, help="jobs of fresh and one that are trained, from 2 on"
    )
    parser.add_argument("--overhead", action="store_true", help="measure the engine alone")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    given = parser.parse_args()
    if given.overhead:
        publish(overhead(), "sweep_overhead.md", write=given.write)
        return 0
    words = [f"epochs={given.epochs}", "logger=none"]
    words += [f"data.limit={given.limit}"] if given.limit else []
    outcomes: dict[str, Outcome] = {}
    for way in given.only:
        with tempfile.TemporaryDirectory() as scratch:
            outcomes[way] = measure(way, words, Path(scratch) / "sweep", timed=given.timed)
        print(table(outcomes)[-2], flush=True)
    publish(
        [
            "# A sweep of twelve jobs, six ways",
            "",
            f"{_processor()}, {os.cpu_count()} cores; the embedded demo, {given.epochs} epochs, "
            f"{SWEPT[0]} {SWEPT[1]}; one run of each way, in this order.",
            "",
            *table(outcomes),
        ],
        "sweep.md",
        write=given.write,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
