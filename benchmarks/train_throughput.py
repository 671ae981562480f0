"""Training throughput and peak memory, side by side, in one go.

A random 21.7M Qwen2, LoRA rank 16 on seven projections, chats of about 1000 + 144 tokens in rows of
at most 4095, one row a step. Hugging Face Trainer is the reference of all ratios.

Run as:
    python benchmarks/train_throughput.py                  # bf16 and fp32, about 15 minutes
    python benchmarks/train_throughput.py --precision bf16 --rounds 1
    python benchmarks/train_throughput.py --processor      # on a machine with other work
    python benchmarks/train_throughput.py --write          # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from arena import TITLES, Arena, heading, precisions, publish
from workload import make

REFERENCE = "HF Trainer, flattening collator"
PLAIN = "plain loop, SDPA per document"
EAGER = "graftlab, compile=off"
COMPILED = "graftlab, compile=on"
TRL = "TRL SFTTrainer, packed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=list(TITLES), help="one of them alone")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contestant")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run")
    parser.add_argument("--warm", type=int, default=4, help="first steps of a run, left out")
    parser.add_argument(
        "--processor",
        action="store_true",
        help="processor time of one thread, for a machine that does other work meanwhile",
    )
    parser.add_argument("--trl", action="store_true", help="TRL too, if installed")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    arguments = parser.parse_args()
    names = [REFERENCE, PLAIN, EAGER, COMPILED]
    if arguments.trl and find_spec("trl"):
        names.append(TRL)
    rounds, steps, warm = arguments.rounds, arguments.steps, arguments.warm
    lines = heading("Training throughput", rounds=rounds, steps=steps, warm=warm)
    if arguments.processor:
        os.environ["OMP_NUM_THREADS"] = "1"
        lines += ["One thread; processor time, as other work ran on the machine.", ""]
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), profile="chats", documents=3 * steps)
        arena = Arena(Path(scratch), warm=warm)
        for precision in [arguments.precision] if arguments.precision else precisions():
            timed = {"processor": arguments.processor}
            arena.measure(names, rounds=rounds, precision=precision, steps=steps, **timed)
            lines += arena.table(TITLES[precision], reference=REFERENCE)
    publish(lines, "train_throughput.md", write=arguments.write)


if __name__ == "__main__":
    main()
