"""DPO on pairs, beside TRL's DPOTrainer: pairs a second and peak memory, in one go.

A random 21.7M Qwen2, LoRA rank 16 on seven projections, prompts of 876 tokens and two answers of
144 each on average, spread as the seeds' lengths are. graftlab trains a row of at most 4095 tokens
a step, TRL three pairs. Counted are the steps of one pass over the pairs, behind the first ones.
Needs TRL (the extra `trl`).

Run as:
    python benchmarks/preference.py                    # bf16 and fp32, about half an hour
    python benchmarks/preference.py --precision fp32 --rounds 1
    python benchmarks/preference.py --write            # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path

from arena import TITLES, Arena, machine, precisions, publish
from preference_contestants import CONTESTANTS, TRL, WARM
from workload import make_pairs

CLOCKS = {False: "the clock", True: "the processor seconds of its process"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=list(TITLES), help="one of them alone")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contestant")
    parser.add_argument("--pairs", type=int, default=18, help="a multiple of three")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, help="these contestants alone")
    parser.add_argument("--processor", action="store_true", help="count processor seconds")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    arguments = parser.parse_args()
    names = arguments.only or list(CONTESTANTS)
    lines = heading(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        make_pairs(Path(scratch), pairs=arguments.pairs)
        arena = Arena(Path(scratch), warm=WARM, script="preference_contestants.py", even=False)
        options = {"rounds": arguments.rounds, "processor": arguments.processor}
        for precision in [arguments.precision] if arguments.precision else precisions():
            arena.measure(names, precision=precision, **options)
            title, reference = TITLES[precision], best(arena)
            lines += arena.table(title, reference=reference, unit="pairs/s", beyond=True)
    publish(lines, "preference.md", write=arguments.write)


def best(arena: Arena) -> str:
    """The fastest of TRL's ways; without any, of all."""
    speeds = {name: statistics.median(found) for name, found in arena.speeds.items()}
    theirs = [name for name in speeds if name.startswith(TRL)]
    return max(theirs or speeds, key=speeds.__getitem__)


def heading(arguments: argparse.Namespace) -> list[str]:
    """What was measured, where and how."""
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return [
        "# DPO on pairs",
        "",
        f"{machine().rstrip('.')}, trl {version('trl')}; threads: {threads}. "
        f"Every run is a process of its own, timed by {CLOCKS[arguments.processor]} over one pass "
        f"over {arguments.pairs} pairs, the first step before it left out ({arguments.rounds} "
        "rounds, each begun by another contestant; medians). Computing the reference beforehand "
        "is not counted. Ratios are to the fastest of TRL's ways; its `padding_free` warns that "
        "it is not there in this version, and pads.",
        "",
    ]


if __name__ == "__main__":
    main()
