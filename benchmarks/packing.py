"""What packing gains over padding: useful tokens/s on the seeds' length profile, four rows a step.

Lengths with a median of 1012, a third quartile of 1300 and a maximum of 3300 tokens; rows of at
most 4095. Padding counts as no token.

Run as:
    python benchmarks/packing.py
    python benchmarks/packing.py --write                   # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from arena import TITLES, Arena, heading, precisions, publish
from workload import make

PADDED = "plain loop, padded to max_length"
CONTESTANTS = [
    PADDED,
    "plain loop, padded within the batch",
    "plain loop, SDPA per document",
    "graftlab, compile=off",
]
ROWS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="runs of each contestant")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of a run")
    parser.add_argument("--warm", type=int, default=2, help="first steps of a run, left out")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    arguments = parser.parse_args()
    rounds, steps, warm = arguments.rounds, arguments.steps, arguments.warm
    lines = heading("Packing against padding", rounds=rounds, steps=steps, warm=warm)
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), profile="seeds", documents=160)
        arena = Arena(Path(scratch), warm=warm)
        precision = precisions()[0]
        arena.measure(CONTESTANTS, rounds=rounds, precision=precision, batch_size=ROWS, steps=steps)
        title = f"{TITLES[precision]}, {ROWS} rows a step"
        lines += arena.table(title, reference=PADDED, unit="useful tokens/s")
    publish(lines, "packing.md", write=arguments.write)


if __name__ == "__main__":
    main()
