"""Devices: every file composes, says its sources, and orders as it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from graftlab.cli.compose import build, compose
from graftlab.errors import ConfigError
from graftlab.files.paths import conf_dir
from graftlab.machine import GIB, Machine, Rates, all_machines

NAMES = sorted(path.stem for path in (conf_dir() / "machine").glob("*.yaml"))
WANTED = {
    *("cpu", "m3-max-36gb", "m2-16gb", "rtx-4070-ti-super", "rtx-4090"),
    *("a100-80gb", "h100", "h200"),
}


def test_they_are_all_there() -> None:
    assert set(NAMES) >= WANTED
    assert set(all_machines()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_device_composes_and_is_that_of_the_shelf(name: str) -> None:
    spec = build(compose("plan", [f"machine={name}"]))
    assert spec.machine == all_machines()[name]
    machine: Machine = spec.machine
    assert machine.bytes > 0
    if machine.kind != "cpu":
        for dtype in ("fp32", "bf16", "fp16"):
            achieved, peak = machine.achieved.of(dtype), machine.peak.of(dtype)
            assert achieved is not None
            assert peak is not None
            assert achieved < peak


@pytest.mark.parametrize("name", NAMES)
def test_every_number_names_its_source(name: str) -> None:
    lines = (conf_dir() / "machine" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    numbers = [line for line in lines if re.match(r"\s*\w+: [\d.]+ ", line)]
    assert len(numbers) >= 2
    source = re.compile(r"\(.+\)|estimate|\bas \w|electricity|RunPod|newsroom")
    assert [line for line in numbers if not source.search(line.partition("#")[2])] == []


def test_this_machine() -> None:
    assert 0.5 < Machine().bytes / GIB < 100_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "tpu"}, "machine.kind=tpu"),
        ({"memory": 16.0, "usable": 17.0}, "machine.usable=17"),
        ({"watts": 0.0}, "machine.watts"),
        ({"price": -1.0}, "machine.price"),
    ],
)
def test_impossible_devices_are_refused(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Machine(**values)
    with pytest.raises(ConfigError, match="bf16"):
        Rates(bf16=0)


def test_planning_imports_no_torch() -> None:
    source = Path(sys.modules["graftlab"].__path__[0])
    modules = [f"graftlab.planning.{p.stem}" for p in (source / "planning").glob("[a-z]*.py")]
    assert len(modules) > 8
    heavy = ["torch", "lightning", "transformers", "peft", "hydra"]
    program = f"import sys, {', '.join(modules)}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_specs_are_light() -> None:
    heavy = ["torch", "numpy", "rich", "yaml"]
    program = (
        "import sys, graftlab.machine, graftlab.training.budget, graftlab.data.profile; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
