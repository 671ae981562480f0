"""Run folders as training leaves them, without training: written by the package's own writers."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from graftlab.tracking.history import History
from graftlab.tracking.result import Result

STEPS, VALIDATED = 40, 10


@cache
def default_config() -> dict[str, Any]:
    """What `python train.py` resolves to."""
    from graftlab.cli.compose import build, compose
    from graftlab.registry import dump

    return dict(dump(build(compose("train", ["run_dir=run"])).training()))


def config_with(values: Mapping[str, Any]) -> dict[str, Any]:
    """The default configuration with dotted keys set."""
    config = copy.deepcopy(default_config())
    for key, value in values.items():
        *parents, last = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        assert last in node, key
        node[last] = value
    return config


def write_run(
    folder: Path,
    values: Mapping[str, Any] | None = None,
    *,
    score: float = 1.0,
    steps: int = STEPS,
    finished: bool = True,
    samples: Sequence[Mapping[str, str]] = (),
    data: str = "96 documents, hash 0123",
    seconds_each: float = 0.5,
    strengths: Sequence[dict[str, float]] = (),
    measure: str = "nats per trained token",
    rewards: bool = False,
) -> Path:
    """One run of `steps` whose validation loss falls from 4 to `score` at its last step."""
    folder.mkdir(parents=True)
    config = config_with({**(values or {}), "run_dir": str(folder)})
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    history = History(folder / "train_log.csv")
    history.cut_back(0)  # writes the head
    history.add({"step": 0, "epoch": 0.0, "valid_loss": 4.0})
    dice = random.Random(str(folder))
    for step in range(1, steps + 1):
        loss = score + (4.0 - score) * math.exp(-5 * step / steps) - (4 - score) * math.exp(-5)
        row = {
            "step": step,
            "epoch": step / STEPS * config["epochs"],
            "loss": loss + dice.gauss(0, 0.1),
            "tokens": 1000 * step,
            "trained_tokens": 400 * step,
            "seconds": seconds_each * step,
            "tokens_per_second": 1000 / seconds_each,
        }
        if step % VALIDATED == 0:
            row["valid_loss"] = loss
        if rewards:
            names = ("rewards_chosen", "rewards_rejected", "reward_margin", "reward_accuracy")
            row |= {name: (n - 1) * step / steps for n, name in enumerate(names)}
        history.add(row)
    if samples:
        write_samples(folder / "samples.md", samples)
    if finished:
        result = result_of(score, folder, steps, strengths=[*strengths], measure=measure)
        _finish(folder, result, data, seconds_each * steps)
    return folder


def _finish(folder: Path, result: Result, data: str, seconds: float) -> None:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "run.yaml").write_text("{}", encoding="utf-8")
    card = f"# Adapter\n\n- validation data: {data}\n- device: cpu (2 threads)\n"
    (folder / "adapter" / "card.md").write_text(card, encoding="utf-8")
    times = {"train_seconds": seconds, "total_seconds": seconds + 10}
    (folder / "time_metrics.json").write_text(json.dumps(times), encoding="utf-8")
    result.write(folder / "result.json")


def result_of(score: float, folder: Path = Path("run"), steps: int = STEPS, **more: Any) -> Result:
    """What such a run ends with."""
    return Result(
        score=score,
        baseline=4.0,
        adapter=str(folder / "adapter"),
        steps=steps,
        best_step=steps,
        epochs=3.0,
        tokens=1000 * steps,
        trained_tokens=400 * steps,
        tokens_per_second=2000.0,
        packing_density=0.95,
        peak_rss_mb=900.0,
        trainable_parameters=1000,
        precision="fp32",
        compiled=False,
        stopped=None,
        **more,
    )


def write_samples(path: Path, samples: Sequence[Mapping[str, str]]) -> None:
    """By the writer of training itself, an older step's samples first."""
    from graftlab.generation.sampling import Generation
    from graftlab.training.samples import Replies, SampleBook

    replies = Replies(nullcontext)
    book = SampleBook(None, None, [], generation=Generation(), replies=replies)  # type: ignore[arg-type]
    book.rows = [{**sample, "adapter": "too early", "step": 1} for sample in samples]
    book.rows += [{**sample, "step": 2} for sample in samples]
    book.write(path)


def grid(root: Path, axes: Mapping[str, Sequence[Any]], *, seeds: int = 1) -> list[Path]:
    """A run for every combination and seed; the score is a bowl over the places, and chance."""
    from itertools import product

    folders = []
    dice = random.Random(0)
    points = list(product(*(enumerate(values) for values in axes.values())))
    for point in points:
        for seed in range(seeds):
            values = {key: value for key, (_, value) in zip(axes, point, strict=True)}
            score = 1 + sum((place - 1) ** 2 * 0.2 for place, _ in point) + dice.gauss(0, 0.01)
            folder = root / str(len(folders))
            folders.append(write_run(folder, {**values, "seed": seed}, score=score))
    return folders
