"""Runs contestants side by side: a process each, round after round, and the table of medians."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SOURCE = HERE.parent / "src"
TITLES = {"bf16": "bf16 mixed", "fp32": "fp32"}
PACKAGES = ("torch", "transformers", "peft", "lightning")


class Arena:
    """Measures contestants in turn, so that a slow minute of the machine hits all of them."""

    def __init__(
        self, folder: Path, *, warm: int, script: str = "contestants.py", even: bool = True
    ) -> None:
        """`folder` holds the workload; the first `warm` steps of every run are left out.

        `script` is who knows the contestants. With `even` steps, a run's speed is that of the
        median step, else that of all steps together.
        """
        self.folder, self.warm, self.script, self.even = folder, warm, script, even
        self.speeds: dict[str, list[float]] = {}
        self.peaks: dict[str, list[float]] = {}
        self.beyond: dict[str, list[float]] = {}

    def measure(self, names: Sequence[str], *, rounds: int, **options: Any) -> None:
        """`rounds` runs of each contestant, every round begun by the next of them.

        `options` are fields of `task.Task`.
        """
        self.speeds, self.peaks, self.beyond = ({name: [] for name in names} for _ in range(3))
        for turn in range(rounds):
            first = turn % len(names)
            for name in [*names[first:], *names[:first]]:
                report = self._run(name, options)
                speed = self._speed(report["steps"][self.warm :])
                self.speeds[name].append(speed)
                self.peaks[name].append(report["peak_rss_mb"])
                self.beyond[name].append(report["peak_rss_mb"] - report["imported_mb"])
                print(f"  round {turn + 1}: {name}: {shown(speed)} a second", flush=True)

    def _speed(self, steady: list[tuple[float, float]]) -> float:
        if self.even:
            return statistics.median(units / seconds for units, seconds in steady)
        return sum(units for units, _ in steady) / sum(seconds for _, seconds in steady)

    def _run(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        target = self.folder / "report.json"
        command = [sys.executable, str(HERE / self.script), name, str(self.folder)]
        done = subprocess.run(
            [*command, json.dumps(options), str(target)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]),
                "GRAFTLAB_CACHE": str(self.folder / "cache"),
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_VERBOSITY": "error",
                "TOKENIZERS_PARALLELISM": "false",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{name} failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
        report: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return report

    def table(
        self, title: str, *, reference: str, unit: str = "tokens/s", beyond: bool = False
    ) -> list[str]:
        """Medians, and the ratio to `reference` as the median over rounds, worst to best.

        Memory is all that a process held, or what it took `beyond` its imports.
        """
        peaks = self.beyond if beyond else self.peaks
        what = "beyond the imports" if beyond else "peak RSS"
        lines = [
            f"### {title}",
            "",
            f"| | {unit} | speed ratio | (worst to best round) | {what}, MiB | memory ratio |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, speeds in self.speeds.items():
            pairs = zip(speeds, self.speeds[reference], strict=True)
            ratios = sorted(mine / theirs for mine, theirs in pairs)
            peak = statistics.median(peaks[name])
            memory = peak / statistics.median(peaks[reference])
            lines.append(
                f"| {name} | {shown(statistics.median(speeds))} | "
                f"**{statistics.median(ratios):.2f}** | {ratios[0]:.2f} to {ratios[-1]:.2f} | "
                f"{peak:,.0f} | {memory:.2f} |"
            )
        return [*lines, ""]


def shown(speed: float) -> str:
    """A speed with three digits at least."""
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


def heading(title: str, *, rounds: int, steps: int, warm: int) -> list[str]:
    """What was measured, where and how."""
    return [
        f"# {title}",
        "",
        f"{machine()} "
        f"Every run is a process of its own of {steps} steps, the first {warm} left out; "
        f"{rounds} rounds in turn, medians.",
        "",
    ]


def machine() -> str:
    """Date, machine and versions, without which the numbers mean nothing."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{datetime.date.today().isoformat()}; {_processor()}, "
        f"{os.cpu_count()} cores; Python {platform.python_version()}, {versions}."
    )


def precisions() -> list[str]:
    """What is worth measuring: bf16 first, where the processor multiplies it in hardware."""
    import torch

    from graftlab.models.arithmetic import has_bf16

    return ["bf16", "fp32"] if has_bf16(torch.device("cpu"))[0] else ["fp32"]


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    flags = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx2": "AVX2"}
    found = [label for flag, label in flags.items() if flag in names.get("flags", "").split()]
    return f"{names.get('model name', platform.machine())} ({', '.join(found)})"


def publish(lines: Sequence[str], name: str, *, write: bool) -> None:
    """Print the lines and, if asked, keep them in `benchmarks/results/`."""
    text = "\n".join(lines)
    print("\n" + text)
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / name).write_text(text.rstrip() + "\n", encoding="utf-8")
