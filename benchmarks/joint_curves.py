"""Curves of runs trained jointly, laid over those of the same runs alone.

Run as: python benchmarks/joint_curves.py docs/joint-curves.svg

Four runs of the embedded default that differ in rank, learning rate, dropout, targets and length
are trained one after the other and then jointly, in fp32. As a measure of what rounding alone does,
one of them is then trained alone once more, on one thread. Prints a table and writes the picture.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graftlab.adapters.lora import Lora
from graftlab.cli.compose import build, compose
from graftlab.tracking.folder import RunFolder
from graftlab.training.joint.groups import JointJob
from graftlab.training.joint.run import execute_together
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run

SHARED = ["precision=fp32", "compile=off", "data.limit=160", "run_dir=unused",
          "callbacks.samples.prompts=0", "callbacks.validation.every_epochs=null"]  # fmt: skip
COLOURS = ("#4269d0", "#d1495b", "#2e8b57", "#8a5fbf")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, FOOT = 860, 380, 56, 24, 250, 44


@dataclass(frozen=True, slots=True)
class Curve:
    """One run's losses by step, alone and jointly, and how far its weights are apart."""

    name: str
    alone: list[float]
    joint: list[float]
    product: float
    """Largest relative distance of B @ A over all modules."""

    @property
    def apart(self) -> float:
        return max(abs(x - y) for x, y in zip(self.alone, self.joint, strict=True))


def variants() -> dict[str, TrainSpec]:
    """Name -> run."""
    spec: TrainSpec = build(compose("train", SHARED)).training()
    low, high = spec.lr / 5, spec.lr
    return {
        f"rank 4, lr {high:g}": replace(spec, lr=high, max_steps=48, lora=Lora(rank=4)),
        f"rank 8, lr {low:g}, dropout 0.1": replace(
            spec, lr=low, max_steps=60, lora=Lora(rank=8, dropout=0.1)
        ),
        f"rank 16, lr {low:g}": replace(spec, lr=low, max_steps=36, lora=Lora(rank=16)),
        f"rank 16, lr {2 * low:g}, attention": replace(
            spec, lr=2 * low, max_steps=60, lora=Lora(rank=16, targets="attn")
        ),
    }


def train(root: Path) -> list[Curve]:
    """All runs, twice."""
    runs = variants()
    for index, spec in enumerate(runs.values()):
        run(replace(spec, run_dir=str(root / f"alone-{index}")))
    jobs = []
    for index, spec in enumerate(runs.values()):
        folder = root / f"joint-{index}"
        jobs.append(JointJob(spec=replace(spec, run_dir=str(folder)), folder=RunFolder(folder)))
    for ended in execute_together(jobs):
        if ended.error is not None:
            raise ended.error
    return [
        Curve(
            name,
            *(losses(root / f"{kind}-{index}") for kind in ("alone", "joint")),
            product_distance(root / f"joint-{index}", root / f"alone-{index}"),
        )
        for index, name in enumerate(runs)
    ]


def control(root: Path) -> Curve:
    """One run alone on one thread, over itself alone: sums in another order, and nothing else."""
    name, again = "rank 16, lr 0.001", root / "again"
    index = list(variants()).index(name)
    spec = variants()[name]
    run(replace(spec, trainer=replace(spec.trainer, threads=1), run_dir=str(again)))
    alone = root / f"alone-{index}"
    apart = product_distance(again, alone)
    return Curve(f"{name}, alone on one thread", losses(alone), losses(again), apart)


def losses(folder: Path) -> list[float]:
    """Training losses by step; step 0 has none."""
    with (folder / "train_log.csv").open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def product_distance(one: Path, other: Path) -> float:
    """The largest relative distance of two runs' B @ A."""
    from safetensors.torch import load_file

    ours, theirs = (load_file(p / "adapter-final/adapter_model.safetensors") for p in (one, other))
    worst = 0.0
    for name in (n for n in ours if "lora_A" in n):
        up = name.replace("lora_A", "lora_B")
        product, reference = ours[up] @ ours[name], theirs[up] @ theirs[name]
        worst = max(worst, float((product - reference).norm() / reference.norm()))
    return worst


def picture(curves: Sequence[Curve]) -> str:
    """The overlay as SVG: alone wide and pale, joint thin and dark."""
    steps = max(len(curve.alone) for curve in curves)
    values = [loss for curve in curves for loss in curve.alone]
    low, high = min(values) - 0.2, max(values) + 0.2

    def points(line: Sequence[float]) -> str:
        return " ".join(
            f"{LEFT + step / (steps - 1) * (WIDTH - LEFT - RIGHT):.1f},{place(loss):.1f}"
            for step, loss in enumerate(line)
        )

    def place(loss: float) -> float:
        return TOP + (high - loss) / (high - low) * (HEIGHT - TOP - FOOT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#333">',
        "<title>Training losses of four runs, alone and jointly</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_axes(steps, low, high, place),
    ]
    for number, (curve, colour) in enumerate(zip(curves, COLOURS, strict=True)):
        drawn = 'fill="none" stroke-linejoin="round"'
        parts += [
            f'<polyline points="{points(curve.alone)}" {drawn} stroke="{colour}" '
            'stroke-width="7" stroke-opacity="0.25"/>',
            f'<polyline points="{points(curve.joint)}" {drawn} stroke="{colour}" '
            'stroke-width="1.5"/>',
            *_legend(curve, colour, TOP + 30 + number * 62),
        ]
    note = "wide: alone; thin: jointly"
    parts.append(f'<text x="{WIDTH - RIGHT + 20}" y="{HEIGHT - FOOT}">{note}</text></svg>')
    return "\n".join(parts) + "\n"


def _axes(steps: int, low: float, high: float, place) -> list[str]:
    right, floor = WIDTH - RIGHT, HEIGHT - FOOT
    parts = [f'<path d="M{LEFT} {TOP}V{floor}H{right}" fill="none" stroke="#999"/>']
    for loss in range(int(low) + 1, int(high) + 1):
        parts.append(
            f'<path d="M{LEFT} {place(loss):.1f}H{right}" stroke="#eee"/>'
            f'<text x="{LEFT - 8}" y="{place(loss) + 4:.1f}" text-anchor="end">{loss}</text>'
        )
    for step in range(10, steps + 1, 10):
        x = LEFT + (step - 1) / (steps - 1) * (right - LEFT)
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{step}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{floor + 36}" text-anchor="middle">step</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">loss, nats per trained token</text>')
    return parts


def _legend(curve: Curve, colour: str, y: int) -> list[str]:
    x = WIDTH - RIGHT + 20
    return [
        f'<path d="M{x} {y - 4}h22" stroke="{colour}" stroke-width="7" stroke-opacity="0.25"/>',
        f'<path d="M{x} {y - 4}h22" stroke="{colour}" stroke-width="1.5"/>',
        f'<text x="{x + 30}" y="{y}">{curve.name}</text>',
        f'<text x="{x + 30}" y="{y + 16}" fill="#777">losses within {curve.apart:.0e}</text>',
        f'<text x="{x + 30}" y="{y + 31}" fill="#777">weights within {curve.product:.0e}</text>',
    ]


def main() -> None:
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        curves = train(Path(scratch))
        repeated = control(Path(scratch))
    print("| run | steps | loss, first and last | loss apart | B A apart |\n|---|--:|--:|--:|--:|")
    for curve in [*curves, repeated]:
        print(
            f"| {curve.name} | {len(curve.alone)} | {curve.alone[0]:.3f} {curve.alone[-1]:.3f} "
            f"| {curve.apart:.1e} | {curve.product:.1e} |"
        )
    target.write_text(picture(curves), encoding="utf-8")
    print(f"written: {target}")


if __name__ == "__main__":
    main()
