"""How much worse `graftlab tune` chooses than a whole grid, and than TPE at the same budget.

Run as:
    python benchmarks/tune.py truth demo WORK        # train a task's whole grid, keep its losses
    python benchmarks/tune.py truth NAME WORK data=jsonl data.train=FILE lr=1e-4,1e-3,1e-2
    python benchmarks/tune.py table                  # what the searches find in the grids kept

A grid has six learning rates, four ranks and three numbers of epochs, or those typed, which share
their first steps. It is trained once, by `graftlab train -m`, and its losses are kept in
results/tune-NAME.json. The searches then look losses up: what they choose costs nothing, and what
they would have trained is counted. TPE is Optuna's, and is granted that its longer trials go on
from its shorter ones.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from graftlab.cli.compose import build, compose
from graftlab.reports.gather import gather
from graftlab.sweeps.prefix_sharing import Length, branch_step
from graftlab.sweeps.search import propose as propose_trial
from graftlab.sweeps.space import Dimension
from graftlab.sweeps.study import Trial
from graftlab.tuning.proposal import propose
from graftlab.tuning.rounds import State, next_round
from graftlab.tuning.space import Axis, Cell, Space

RESULTS = Path(__file__).parent / "results"
GRID = {
    "lr": ("0.001", "0.002", "0.005", "0.01", "0.02", "0.05"),
    "lora.rank": ("4", "8", "16", "32"),
    "epochs": ("1", "2", "4"),
}
SETTINGS = [
    *("schedule=wsd", "schedule.warmup_ratio=null", "schedule.warmup_steps=4", "compile=off"),
    *("logger=none", "callbacks.samples.prompts=0", "launcher=joint", "launcher.slots=1"),
]
TASKS = {
    "demo": ["data.limit=20", "packing.max_length=256"],
    "demo-large": ["data.limit=160", "packing.max_length=1024"],
}
"""Words of tasks on the embedded base and its data."""
SHARE = 0.2
SEEDS = 10


@dataclass(frozen=True, slots=True)
class Truth:
    """A task whose losses are all known."""

    name: str
    space: Space
    epochs: dict[int, int]
    losses: dict[Cell, float]
    base: float

    @classmethod
    def read(cls, file: Path) -> Truth:
        told = json.loads(file.read_text(encoding="utf-8"))
        each, grid = told["steps_per_epoch"], told["grid"]
        spec = build(compose("train", ["run_dir=run", *SETTINGS])).training()
        lengths = {}
        for epochs in map(int, grid["epochs"]):
            one = replace(spec, epochs=epochs)
            lengths[epochs * each] = Length(spec=one, steps_per_epoch=each, compiled=False)
        shared = {
            (a, b): branch_step(lengths[a], lengths[b]) for a in lengths for b in lengths if a < b
        }
        axes = tuple(Axis(key, tuple(grid[key])) for key in ("lr", "lora.rank"))
        steps = tuple(lengths)
        space = Space(axes=axes, ladder=steps[0], lengths=steps, shared=shared)
        losses = {Cell((lr, rank), int(e) * each): loss for lr, rank, e, loss in told["losses"]}
        return cls(told["name"], space, {n * each: n for n in map(int, grid["epochs"])}, losses,
                   told["base"])  # fmt: skip

    @property
    def best(self) -> float:
        return min(self.losses.values())

    def regret(self, cell: Cell) -> float:
        """As a share of what the best run gains over the base."""
        return (self.losses[cell] - self.best) / (self.base - self.best)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has chosen, and what it has spent."""

    regret: float
    share: float
    claimed: tuple[float, float, float] | None = None
    """Expected regret and its interval, as shares of the gain."""


def tuned(truth: Truth) -> Found:
    """What `graftlab tune` chooses."""
    space, seen = truth.space, dict[Cell, float]()
    while True:
        left = int(SHARE * space.grid_steps) - space.bill(list(seen))
        following = next_round(State(space, seen, truth.base, left))
        if following is None:
            break
        seen |= {cell: truth.losses[cell] for cell in following.cells}
    found = propose(space, seen, base=truth.base, epochs=truth.epochs)
    assert found is not None
    gain = truth.base - truth.best
    claimed = found.regret
    return Found(
        truth.regret(found.cell),
        found.share,
        (claimed.middle / gain, claimed.low / gain, claimed.high / gain),
    )


def searched(truth: Truth, method: str, seed: int) -> Found:
    """What a search of Optuna's chooses within the same steps."""
    steps = {epochs: steps for steps, epochs in truth.epochs.items()}
    dimensions = [
        *(Dimension(key=axis.key, choices=axis.values) for axis in truth.space.axes),
        Dimension(key="epochs", choices=tuple(map(str, steps))),
    ]
    history: list[Trial] = []
    seen: list[Cell] = []
    while True:
        point = propose_trial(dimensions, history, method=method, seed=seed, number=len(history))
        assert point is not None
        cell = Cell((point["lr"], point["lora.rank"]), steps[int(point["epochs"])])
        if truth.space.bill([*seen, cell]) > SHARE * truth.space.grid_steps:
            break
        seen.append(cell)
        history.append(Trial(point=point, score=truth.losses[cell], state="done"))
    best = min(seen, key=lambda cell: truth.losses[cell])
    return Found(truth.regret(best), truth.space.bill(seen) / truth.space.grid_steps)


def train_grid(name: str, work: Path, words: list[str]) -> None:
    """Train all of a task's grid in `work`, or go on there, and keep the losses."""
    typed = dict(word.split("=", 1) for word in words)
    grid = {
        key: typed.pop(key).split(",") if key in typed else usual for key, usual in GRID.items()
    }
    words = [*TASKS.get(name, []), *(f"{key}={value}" for key, value in typed.items())]
    swept = [f"{key}={','.join(values)}" for key, values in grid.items()]
    line = ["-m", *swept, *SETTINGS, *words, f"hydra.sweep.dir={work}"]
    subprocess.run([sys.executable, "-m", "graftlab", "train", *line], check=True)
    runs = gather([work])
    rows, base, each = [], 0.0, 0
    for run in runs:
        assert run.result is not None
        assert run.result.score is not None
        assert run.result.baseline is not None
        base, each = run.result.baseline, round(run.result.steps / run.result.epochs)
        texts = [next(v for v in grid[k] if float(v) == float(run.swept[k])) for k in GRID]
        rows.append([*texts, run.result.score])
    kept: Mapping[str, Any] = {
        "name": name,
        "words": [*SETTINGS, *words],
        "grid": grid,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "base": base,
        "steps_per_epoch": each,
        "losses": sorted(rows),
    }
    (RESULTS / f"tune-{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def print_table() -> None:
    """A row for each grid that was kept."""
    print("| task | tune: regret | claimed, 90 % | holds | steps | TPE: regret, median | random |")
    print("|---|--:|--:|---|--:|--:|--:|")
    for file in sorted(RESULTS.glob("tune-*.json")):
        truth = Truth.read(file)
        ours = tuned(truth)
        assert ours.claimed is not None
        middle, low, high = ours.claimed
        holds = "yes" if low - 1e-9 <= ours.regret <= high + 1e-9 else "no"
        others = [
            f"{median(searched(truth, method, s).regret for s in range(SEEDS)):.1%}"
            for method in ("tpe", "random")
        ]
        claim = f"{middle:.1%} ({low:.1%} to {high:.1%})"
        cells = [truth.name, f"{ours.regret:.1%}", claim, holds, f"{ours.share:.0%}", *others]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["truth"] and len(sys.argv) > 3:
        train_grid(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    elif sys.argv[1:] == ["table"]:
        print_table()
    else:
        sys.exit(__doc__)
