"""What `graftlab plan` predicts beside what training takes: peak memory, and step time by probe.

None of these configurations was used to find the constants in `src/graftlab/planning/memory.py`.
Every run is a process of its own; memory is what its `result.json` says, step time the mean of its
steps but the first two. The probe is another process, of eight steps.

Run as:
    python benchmarks/plan_calibration.py                     # about 15 minutes on two cores
    python benchmarks/plan_calibration.py --only 384-bf16 --steps 12
    python benchmarks/plan_calibration.py --memory            # no step times: for a busy machine
    python benchmarks/plan_calibration.py --write             # keep the table in results/
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arena import PACKAGES, _processor, publish
from workload import SHAPE, make

MEMORY_GOAL, TIME_GOAL = 0.15, 0.25
NAMES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration: a base by its five sizes, and what is typed."""

    sizes: tuple[int, ...]
    words: tuple[str, ...]
    profile: str = "chats"

    @property
    def shape(self) -> dict[str, Any]:
        return {**SHAPE, **dict(zip(NAMES, self.sizes, strict=True))}


BF16, FP32 = "precision=bf16-mixed", "precision=fp32"
CHECKPOINTS = "model.gradient_checkpointing=true"
CASES = {
    "384-bf16": Case((384, 1536, 10, 6, 3), (BF16, "packing.max_length=1280"), "short"),
    "576-fp32": Case((576, 1536, 6, 9, 3), (FP32, "packing.max_length=2560"), "short"),
    "320-deep-long": Case((320, 896, 12, 5, 5), (BF16, "packing.max_length=4095")),
    "384-checkpoints": Case(
        (384, 2048, 8, 6, 6), (BF16, "packing.max_length=4095", CHECKPOINTS), "seeds"
    ),
    "640-fp32-checkpoints": Case(
        (640, 1792, 5, 10, 5), (FP32, "packing.max_length=2048", CHECKPOINTS), "short"
    ),
    "448-fp32-checkpoints": Case(
        (448, 1216, 7, 7, 7), (FP32, "packing.max_length=3072", CHECKPOINTS), "short"
    ),
    "256-batch-4": Case(
        (256, 768, 6, 4, 2), (BF16, "packing.max_length=1024", "batch_size=4"), "short"
    ),
    "768-rank-64-dropout": Case(
        (768, 2048, 4, 12, 4),
        (BF16, "packing.max_length=1536", "lora.rank=64", "lora.dropout=0.05"),
        "short",
    ),
    "512-compiled": Case(
        (512, 1408, 8, 8, 2), (BF16, "packing.max_length=2048", "compile=on"), "short"
    ),
}


@dataclass(slots=True)
class Outcome:
    """Bytes and seconds, predicted and measured."""

    memory: tuple[float, float] = (0.0, 0.0)
    seconds: tuple[float, float] = (0.0, 0.0)
    tokens: int = 0
    terms: dict[str, float] = field(default_factory=dict)


def compare(case: Case, folder: Path, *, steps: int, probed: bool) -> Outcome:
    """Plan the case, with a probe if asked, then train it for `steps` optimizer steps."""
    from graftlab.config import build, compose
    from graftlab.planning.memory import GIB
    from graftlab.tasks.plan import run as plan
    from graftlab.tasks.probing import probe_spec

    files = make(folder, profile=case.profile, documents=200, shape=case.shape)
    words = [
        *("model=hf", f"model.path={files.base}", "data=jsonl", f"data.train={files.chats}"),
        *("data.valid_fraction=0.0", "epochs=100", f"max_steps={steps}", "lora.rank=16"),
        *("logger=none", "callbacks=quiet", "trainer=cpu", "compile=off", *case.words),
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        predicted = plan(build(compose("plan", [*words, f"probe={probed}", f"run_dir={folder}"])))
    spec = build(compose("train", [*words, f"run_dir={folder / 'run'}"]))
    compiled = predicted.knobs.settings.compiled
    long = probe_spec(spec, compiled=compiled, run_dir=folder / "run")
    long.max_steps = steps
    result = _train(long, folder)
    bill = predicted.bill
    assert bill is not None
    per_step = result["tokens"] / result["steps"]
    return Outcome(
        memory=(predicted.memory.total, result["peak_rss_mb"] * 2**20),
        seconds=(bill.seconds_per_step if probed else 0.0, per_step / result["tokens_per_second"]),
        tokens=predicted.load.batch_tokens,
        terms={name: size / GIB for name, size in predicted.memory.terms().items()},
    )


def _train(spec: Any, folder: Path) -> dict[str, Any]:
    from graftlab.choices import dump

    file = folder / "long.json"
    file.write_text(json.dumps(dump(spec)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "graftlab.tasks.rank", str(file)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"training failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return found


def table(outcomes: dict[str, Outcome]) -> list[str]:
    """One line per case, in MiB and seconds."""
    lines = [
        "| configuration | tokens | predicted, MiB | measured | off | probed step, s | measured "
        "| off |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in outcomes.items():
        predicted, measured = (size / 2**20 for size in found.memory)
        probed, real = found.seconds
        times = (
            f"{probed:.2f} | {real:.2f} | **{probed / real - 1:+.0%}**" if probed else "- | - | -"
        )
        lines.append(
            f"| {name} | {found.tokens:,} | {predicted:,.0f} | {measured:,.0f} | "
            f"**{predicted / measured - 1:+.0%}** | {times} |"
        )
    return [*lines, ""]


def verdict(outcomes: dict[str, Outcome]) -> str:
    """How many are within the goals."""
    memory = [abs(p / m - 1) <= MEMORY_GOAL for p, m in (o.memory for o in outcomes.values())]
    time = [abs(p / m - 1) <= TIME_GOAL for p, m in (o.seconds for o in outcomes.values()) if p]
    return (
        f"{sum(memory)} of {len(memory)} peaks within {MEMORY_GOAL:.0%}, "
        f"{sum(time)} of {len(time)} step times within {TIME_GOAL:.0%}."
    )


def main() -> None:
    import platform
    from importlib.metadata import version

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(CASES), help="some of the cases")
    parser.add_argument("--steps", type=int, default=16, help="optimizer steps of a measured run")
    parser.add_argument("--memory", action="store_true", help="plan without a probe")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    arguments = parser.parse_args()
    outcomes = {}
    for name in arguments.only or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["GRAFTLAB_CACHE"] = str(Path(scratch) / "cache")
            outcomes[name] = compare(
                CASES[name], Path(scratch), steps=arguments.steps, probed=not arguments.memory
            )
        print("\n".join(table({name: outcomes[name]})[2:-1]), flush=True)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# Calibration of `graftlab plan`",
        "",
        f"{_processor()}, {os.cpu_count()} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} "
        f"threads; Python {platform.python_version()}, {versions}; {arguments.steps} steps a run. "
        f"{verdict(outcomes)}",
        "",
        *table(outcomes),
    ]
    publish(lines, "plan_calibration.md", write=arguments.write)


if __name__ == "__main__":
    main()
