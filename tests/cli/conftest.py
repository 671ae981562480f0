"""A command to knock at: the tasks behind it only note what they were given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from graftlab.sweeps.step_counts import lengths_of
from kept_logging import kept_logging
from knocking import Knock, knock


@dataclass
class Doors:
    """Calls `main` in an empty folder; `specs` are those the tasks were called with."""

    capture: pytest.CaptureFixture[str]
    folder: Path
    model: Path
    specs: list[Any] = field(default_factory=list)
    orders: list[Any] = field(default_factory=list)
    """Sweeps that were to be run."""
    fail: dict[str, BaseException] = field(default_factory=dict)

    def knock(self, *arguments: str) -> Knock:
        return knock(self.capture, *arguments)

    def train(self, *arguments: str) -> Knock:
        """`graftlab train` on a miniature and a data file of its own."""
        small = [
            "model=hf",
            f"model.path={self.model}",
            "data=jsonl",
            f"data.train={self.folder / 'chats.jsonl'}",
        ]
        return self.knock("train", *small, *arguments)

    def sweep(self, order: Any) -> Any:
        from graftlab.sweeps.engine import SweepOutcome

        self.orders.append(order)
        return SweepOutcome(order.folder, [], 0.0)

    def jobs(self) -> list[Any]:
        """The specifications of the last sweep's jobs."""
        from graftlab.registry import restore
        from graftlab.training.spec import TrainSpec

        return [restore(TrainSpec, draft.spec) for draft in self.orders[-1].source.drafts]

    def run(self, spec: Any) -> None:
        self.specs.append(spec)
        for key, error in self.fail.items():
            name, _, value = key.partition("=")
            if str(getattr(spec, name)) == value:
                raise error


@pytest.fixture
def doors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    qwen2_folder: Path,
) -> Iterator[Doors]:
    import importlib

    monkeypatch.chdir(tmp_path)
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    (tmp_path / "chats.jsonl").write_text(json.dumps(turns) + "\n", encoding="utf-8")
    doors = Doors(capsys, tmp_path, qwen2_folder)
    for verb in ("train", "sample", "evaluate", "inspect", "prepare", "report"):
        monkeypatch.setattr(importlib.import_module(f"graftlab.verbs.{verb}"), "run", doors.run)
    monkeypatch.setattr(importlib.import_module("graftlab.sweeps.run"), "run", doors.sweep)
    # A process of its own only keeps the launcher small; test_sweep_prefix_sharing.py starts it.
    monkeypatch.setattr("graftlab.cli.sweep.lengths_apart", lengths_of)
    with kept_logging():
        yield doors
