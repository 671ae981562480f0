"""The example of a sweep that W&B's server drives: what its agent would run is accepted here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from graftlab.cli.main import main
from graftlab.tracking.result import Result
from graftlab.tracking.tracker import final

ROOT = Path(__file__).parents[2]
SWEEP: dict[str, Any] = yaml.safe_load((ROOT / "cloud" / "wandb-sweep.yaml").read_text())


def command_of(point: dict[str, Any]) -> list[str]:
    """The command line of W&B's agent for a point, by W&B's own functions."""
    values = create_sweep_command_args({"args": {k: {"value": v} for k, v in point.items()}})
    values |= {"program": [SWEEP["program"]], "env": []}
    words: list[str] = []
    for word in create_sweep_command(list(SWEEP["command"])):
        name = word[2:-1] if word.startswith("${") else None
        words += [word] if name is None else values[name]
    return words


def corners() -> list[dict[str, Any]]:
    """Points that have every listed value, and both ends of every range."""
    ends = {
        key: space.get("values")
        or [space[name] for name in ("min", "max", "value") if name in space]
        for key, space in SWEEP["parameters"].items()
    }
    assert all(ends.values())
    most = max(map(len, ends.values()))
    return [{key: values[i % len(values)] for key, values in ends.items()} for i in range(most)]


@pytest.mark.parametrize("point", corners(), ids=str)
def test_what_the_agent_runs_is_accepted_and_means_what_it_says(
    point: dict[str, Any], monkeypatch, tmp_path, capsys
) -> None:
    command = command_of(point)
    assert command[:2] == ["python", "train.py"]
    assert (ROOT / command[1]).is_file()
    monkeypatch.chdir(tmp_path)
    assert main(["train", *command[2:], "--cfg", "job"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["logger"]["wandb"] is not None
    for key, value in point.items():
        at: Any = config
        for name in key.split("."):
            at = at[name]
        assert float(at) == value
        assert isinstance(value, int | float)  # not a word that YAML made of 1e-4


def test_the_metric_is_one_that_every_finished_run_has() -> None:
    fields = dict.fromkeys(Result.__dataclass_fields__, 1.0)
    result = Result(**fields | {"metrics": {}, "interval": (0.5, 1.5)})
    assert SWEEP["metric"]["name"] in final(result)
    assert SWEEP["metric"]["goal"] == "minimize"


def test_a_wrong_key_would_be_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *command_of({"lora.rnak": 8})[2:], "--cfg", "job"]) == 2
