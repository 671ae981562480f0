"""A probe: a few real steps on this machine, in a process of their own, and what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

from graftlab.errors import ConfigError, GraftlabError
from graftlab.planning.plan import Probe
from graftlab.registry import dump
from graftlab.tracking.loggers import Loggers
from graftlab.tracking.result import Result
from graftlab.training.budget import Limits
from graftlab.training.checkpoint import Checkpointing
from graftlab.training.spec import TrainSpec
from graftlab.training.trainer import TrainerSpec
from graftlab.training.watch import Callbacks, Samples, Validation

PROBE_STEPS = 8
"""Optimizer steps of a probe; the first two, which warm up, are left out of its speed."""


def probe(spec: TrainSpec, *, compiled: bool) -> Probe:
    """Train a few steps in a process of its own and take its speed and peak memory.

    Raises ConfigError where there is nothing to train with, GraftlabError where it fails.
    """
    if not spec.data.has_files:
        raise ConfigError("probe=true trains real steps: it needs data.train=FILE.")
    spec.model.folder()
    with tempfile.TemporaryDirectory(prefix="graftlab-probe-") as scratch:
        file, run_dir = Path(scratch) / "probe.json", Path(scratch) / "run"
        short = probe_spec(spec, compiled=compiled, run_dir=run_dir)
        file.write_text(json.dumps(dump(short)), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "graftlab.training", str(file)],
            capture_output=True,
            text=True,
            env=dict(os.environ),
            check=False,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stderr.strip().splitlines()[-6:])
            raise GraftlabError(f"probe=true: its steps failed (exit {done.returncode}).\n{tail}")
        result = Result.read(run_dir / "result.json")
    return Probe(
        result.tokens_per_second, result.peak_rss_mb * 2**20, result.steps, result.compiled
    )


def probe_spec(spec: TrainSpec, *, compiled: bool, run_dir: Path) -> TrainSpec:
    """`spec` for a few steps: the same work each, and nothing watched, tracked or sampled."""
    values = {field.name: getattr(spec, field.name) for field in fields(TrainSpec)}
    values |= {
        "data": replace(spec.data, valid=None, valid_fraction=0.0),
        "callbacks": Callbacks(
            progress=False,
            validation=Validation(every_epochs=None),
            samples=Samples(prompts=0),
            chosen={},
        ),
        "logger": Loggers(),
        "checkpoint": Checkpointing(every_epochs=None, keep=1),
        "trainer": TrainerSpec(accelerator="cpu", threads=spec.trainer.threads),
        "budget": Limits(),
        "max_steps": PROBE_STEPS,
        "max_minutes": None,
        "resume": None,
        "compile": "on" if compiled else "off",
        "run_dir": str(run_dir),
    }
    return TrainSpec(**values)
