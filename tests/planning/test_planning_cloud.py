"""The task for a rented GPU: its words are ours, its devices exist, and it ends the machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftlab.files.paths import conf_dir

ROOT = Path(__file__).parents[2]
TASK = yaml.safe_load((ROOT / "cloud" / "train.sky.yaml").read_text(encoding="utf-8"))


def test_it_sends_trains_and_ends_the_machine() -> None:
    assert set(TASK) == {"name", "workdir", "resources", "envs", "file_mounts", "setup", "run"}
    assert TASK["resources"]["autostop"]["down"] is True
    assert "graftlab train $WORDS" in TASK["run"]
    assert "constraints.txt" in TASK["setup"]
    used = set(re.findall(r"\$([A-Z_]+)", TASK["run"]))
    assert used == set(TASK["envs"])


def test_its_device_and_keys_are_ours() -> None:
    assert (conf_dir() / "machine" / f"{TASK['envs']['DEVICE']}.yaml").is_file()
    assert "budget.max_cost=" in TASK["run"]
    assert "hydra.run.dir=outputs/cloud" in TASK["run"]
    page = (ROOT / "docs" / "cloud.md").read_text(encoding="utf-8")
    assert "sky down graftlab" in page
    assert "outputs/cloud" in page
    torch = re.search(r"torch==([\d.]+)", TASK["setup"])
    assert torch is not None
    assert torch.group() in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_skypilot_s_own_schema_takes_it() -> None:
    """Runs where SkyPilot is installed; no dependency, as its own are many."""
    pytest.importorskip("sky", reason="SkyPilot is not installed (pip install skypilot)")
    from sky.utils import schemas, validator

    def problems(schema: dict[str, Any], value: Any) -> list[str]:
        checker = validator.get_schema_validator()(schema)
        return [error.message for error in checker.iter_errors(value)]

    task, resources = schemas.get_task_schema(), schemas.get_resources_schema()
    assert problems(task, TASK) == []
    assert problems(resources, TASK["resources"]) == []
    # It would have told.
    assert problems(task, {**TASK, "resource": {}})
    assert problems(resources, {**TASK["resources"], "autostop": {"idle": 15}})
