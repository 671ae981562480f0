"""What `graftlab plan` predicts beside what training takes: peak memory, and step time by probe.

The constants in `src/graftlab/planning/memory.py` were found with other configurations:
`plan_cases.py` has both sets, `plan_fit.py` finds the constants. Every run is a process of its own;
memory is what its `result.json` says, step time the mean of its steps but the first two. The probe
is another process, of eight steps.

Run as:
    python benchmarks/plan_calibration.py                     # about 15 minutes on two cores
    python benchmarks/plan_calibration.py --only 384-bf16 --steps 12
    python benchmarks/plan_calibration.py --memory            # no step times: for a busy machine
    python benchmarks/plan_calibration.py --write             # keep the table in results/
    python benchmarks/plan_calibration.py --fit --write       # the fitting set, and its constants
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena import PACKAGES, _processor, publish
from plan_cases import FIT, UNSEEN, Case
from plan_fit import refit
from workload import make

if TYPE_CHECKING:
    from graftlab.planning.plan import Plan

MEMORY_GOAL, TIME_GOAL = 0.15, 0.25


@dataclass(slots=True)
class Outcome:
    """Bytes and seconds, predicted and measured."""

    memory: tuple[float, float]
    seconds: tuple[float, float]
    plan: Plan


def compare(case: Case, folder: Path, *, steps: int, probed: bool) -> Outcome:
    """Plan the case, with a probe if asked, then train it for `steps` optimizer steps."""
    from graftlab.cli.compose import build, compose
    from graftlab.planning.probe import probe_spec
    from graftlab.verbs.plan import run as plan

    files = make(folder, profile=case.profile, documents=200, shape=case.shape)
    words = [
        *("model=hf", f"model.path={files.base}", "data=jsonl", f"data.train={files.chats}"),
        *("data.valid_fraction=0.0", "epochs=100", f"max_steps={steps}", "lora.rank=16"),
        *("logger=none", "callbacks=quiet", "trainer=cpu", "compile=off", *case.words),
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        predicted = plan(build(compose("plan", [*words, f"probe={probed}", f"run_dir={folder}"])))
    spec = build(compose("train", [*words, f"run_dir={folder / 'run'}"])).training()
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
        plan=predicted,
    )


def _train(spec: Any, folder: Path) -> dict[str, Any]:
    from graftlab.registry import dump

    file = folder / "long.json"
    file.write_text(json.dumps(dump(spec)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "graftlab.training", str(file)],
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
            f"| {name} | {found.plan.load.batch_tokens:,} | {predicted:,.0f} | {measured:,.0f} | "
            f"**{predicted / measured - 1:+.0%}** | {times} |"
        )
    return [*lines, ""]


def verdict(outcomes: dict[str, Outcome]) -> str:
    """How many are within the goals."""
    memory = [abs(p / m - 1) <= MEMORY_GOAL for p, m in (o.memory for o in outcomes.values())]
    time = [abs(p / m - 1) <= TIME_GOAL for p, m in (o.seconds for o in outcomes.values()) if p]
    times = f", {sum(time)} of {len(time)} step times within {TIME_GOAL:.0%}" if time else ""
    return f"{sum(memory)} of {len(memory)} peaks within {MEMORY_GOAL:.0%}{times}."


def report(outcomes: dict[str, Outcome], *, fitted: bool, steps: str) -> list[str]:
    """The page: machine and versions, the verdict, the table, and the constants if asked."""
    import platform
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    title = "The fit of `graftlab plan`" if fitted else "Calibration of `graftlab plan`"
    lines = [
        f"# {title}",
        "",
        f"{_processor()}, {os.cpu_count()} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} "
        f"threads; Python {platform.python_version()}, {versions}; {steps} steps a run. "
        f"{verdict(outcomes)}",
        "",
        *table(outcomes),
    ]
    if fitted:
        lines += refit([(o.plan, o.memory[1]) for o in outcomes.values()])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*UNSEEN, *FIT], help="some of the cases")
    parser.add_argument("--steps", type=int, help="optimizer steps of a measured run; 16")
    parser.add_argument("--memory", action="store_true", help="plan without a probe")
    parser.add_argument("--fit", action="store_true", help="the fitting set, without probes")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    arguments = parser.parse_args()
    cases, outcomes = (FIT if arguments.fit else UNSEEN), {}
    probed = not (arguments.memory or arguments.fit)
    for name in arguments.only or cases:
        case = cases[name]
        steps = arguments.steps or case.steps or 16
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["GRAFTLAB_CACHE"] = str(Path(scratch) / "cache")
            outcomes[name] = compare(case, Path(scratch), steps=steps, probed=probed)
        print("\n".join(table({name: outcomes[name]})[2:-1]), flush=True)
    steps = str(arguments.steps or ("3 to 300" if arguments.fit else 16))
    lines = report(outcomes, fitted=arguments.fit, steps=steps)
    file = "plan_fit.md" if arguments.fit else "plan_calibration.md"
    publish(lines, file, write=arguments.write)


if __name__ == "__main__":
    main()
