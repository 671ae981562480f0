"""Adapter weights in bf16 at a small learning rate: plain AdamW, the split step, and fp32.

Trains the embedded default three times over the same rows and prints the curves side by side.
"plain bf16" is what other toolkits call bf16: weights, moments and update in bf16.

Run as:
    python benchmarks/bf16_update.py --steps 200
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from graftlab.cli.compose import build, compose
from graftlab.training import split
from graftlab.training.start import run

CONTESTANTS = {"fp32": "fp32", "plain bf16": "bf16", "graftlab bf16": "bf16"}


class PlainAdamW(torch.optim.AdamW):
    """torch's AdamW under the name of ours: rounds every update to bf16."""


@contextmanager
def optimizer_of(contestant: str) -> Iterator[None]:
    ours = split.SplitAdamW
    if contestant == "plain bf16":
        split.SplitAdamW = PlainAdamW  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        split.SplitAdamW = ours  # type: ignore[misc]


def train(contestant: str, folder: Path, *, steps: int, lr: float) -> dict[int, tuple[float, ...]]:
    """(training loss, validation loss) by step, where validated."""
    overrides = [
        f"precision={CONTESTANTS[contestant]}",
        f"lr={lr}",
        f"max_steps={steps}",
        f"run_dir={folder}",
        f"callbacks.validation.every_steps={max(1, steps // 8)}",
        "callbacks.samples.prompts=0",
        "schedule=constant",
        "logger=csv",
        "compile=off",
    ]
    with optimizer_of(contestant):
        run(build(compose("train", overrides)).training())
    with (folder / "train_log.csv").open() as file:
        return {
            int(row["step"]): (float(row["loss"] or "nan"), float(row["valid_loss"]))
            for row in csv.DictReader(file)
            if row["valid_loss"]
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=2e-5)
    arguments = parser.parse_args()
    curves = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in CONTESTANTS:
            folder = Path(scratch) / name.replace(" ", "-")
            curves[name] = train(name, folder, steps=arguments.steps, lr=arguments.lr)
    print(f"\nvalidation loss at lr {arguments.lr:g}, nats per trained token\n")
    print("| step | " + " | ".join(CONTESTANTS) + " |")
    print("|---|" + "---|" * len(CONTESTANTS))
    for step in sorted(curves["fp32"]):
        losses = " | ".join(f"{curves[name][step][1]:.4f}" for name in CONTESTANTS)
        print(f"| {step} | {losses} |")


if __name__ == "__main__":
    main()
