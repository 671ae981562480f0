"""KL-SFT against SFT: time and peak memory of the same steps, side by side, in one go.

The workload of train_throughput.py (a random 21.7M Qwen2, LoRA rank 16 on seven projections, rows
of at most 4095), or documents as long as the seeds', both with layers that are not compiled.

Run as:
    python benchmarks/kl_sft.py                    # bf16 and fp32, about ten minutes
    python benchmarks/kl_sft.py --precision fp32 --rounds 1
    python benchmarks/kl_sft.py --write            # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from arena import TITLES, Arena, heading, precisions, publish
from workload import make

REFERENCE = "graftlab, compile=off"
KL_SFT = "graftlab, objective=kl-sft"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=list(TITLES), help="one of them alone")
    parser.add_argument("--profile", choices=["chats", "seeds"], default="chats", help="documents")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run")
    parser.add_argument("--warm", type=int, default=4, help="first steps of a run, left out")
    parser.add_argument("--processor", action="store_true", help="count processor seconds")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    arguments = parser.parse_args()
    rounds, steps, warm = arguments.rounds, arguments.steps, arguments.warm
    lines = heading("KL-SFT against SFT", rounds=rounds, steps=steps, warm=warm)
    if arguments.processor:
        lines[2] += " Seconds are the process's own processor seconds."
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), profile=arguments.profile, documents=3 * steps)
        arena = Arena(Path(scratch), warm=warm)
        options = {"rounds": rounds, "steps": steps, "processor": arguments.processor}
        for precision in [arguments.precision] if arguments.precision else precisions():
            arena.measure([REFERENCE, KL_SFT], precision=precision, **options)
            lines += arena.table(TITLES[precision], reference=REFERENCE)
    publish(lines, "kl_sft.md", write=arguments.write)


if __name__ == "__main__":
    main()
