"""Plans of preference runs: their reference pass beside a real one, their work and advice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from graftlab.data.jsonl import JsonlData
from graftlab.machine import all_machines
from graftlab.models.tiny import TinyModel
from graftlab.objectives.base import Objective
from graftlab.objectives.cpo import CPO
from graftlab.objectives.dpo import DPO
from graftlab.objectives.kto import KTO
from graftlab.planning.estimate import estimate_run
from graftlab.planning.plan import Plan
from graftlab.planning.show import show
from graftlab.planning.timing import bill, work
from graftlab.text.encode import TokenSet
from graftlab.tracking.folder import RunFolder
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.precision import Precision
from graftlab.training.reference import _Pass, resolve_reference
from graftlab.training.setup import resolve_setup
from graftlab.verbs.plan import PlanSpec
from pairs import preference_file
from plan_figures import GPU, SHAPE, a_load


def asked(objective: Objective, folder: Path) -> PlanSpec:
    file = preference_file(folder / "rows.jsonl", objective.takes, count=40)
    return PlanSpec(
        model=TinyModel(),
        data=JsonlData(train=str(file), valid_fraction=0.2),
        objective=objective,
        optimizer=AdamW(),
        precision=Precision(name="fp32"),
        machine=all_machines()["h100"],  # whose rates are known: nothing is measured
        compile="off",
        run_dir=str(folder / "run"),
    )


def printed(plan: Plan) -> str:
    console = Console(width=300, color_system=None)
    with console.capture() as capture:
        show(plan, console)
    return capture.get()


@pytest.mark.parametrize("objective", [DPO(), KTO()])
def test_the_reference_pass_is_what_training_does(
    objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    passed: list[int] = []
    honest = _Pass._compute

    def counted(self: _Pass, tokens: TokenSet, name: str) -> np.ndarray:
        passed.append(int(tokens.lengths.sum()))
        return honest(self, tokens, name)

    monkeypatch.setattr(_Pass, "_compute", counted)
    spec = asked(objective, tmp_path)
    plan = estimate_run(spec)
    setup = resolve_setup(spec.training(), RunFolder(tmp_path / "run"))
    base = TinyModel().load(dtype=torch.float32, device=torch.device("cpu"))
    resolve_reference(setup, base, None)
    kept = [np.load(file) for file in (tmp_path / "cache").glob("reference-*/logps.npy")]
    assert len(kept) == len(passed) == (4 if objective.needs_mismatched else 2)
    (line,) = [line for line in printed(plan).splitlines() if line.split()[:1] == ["reference"]]
    words = line.replace(",", "").split()
    tokens, size = int(words[words.index("over") + 1]), float(words[words.index("KiB") - 1])
    # An answer to another prompt is as long as its own on average only.
    assert tokens == pytest.approx(sum(passed), rel=0.02 if objective.needs_mismatched else 0)
    assert size == pytest.approx(sum(array.nbytes for array in kept) / 1024, abs=0.05)


def test_no_reference_is_told_of_an_objective_without_one(tmp_path: Path) -> None:
    assert "\n reference " not in printed(estimate_run(asked(CPO(), tmp_path)))


def test_passes_by_hand() -> None:
    """A token's forward pass over the base: its weights, the head at a quarter of the tokens, and
    attention over half a document of 375 in 4 layers of 256.
    """
    load, head = a_load(valid_tokens=500), 8000 * 256 / 4
    attention = 2 * 2 * 256 * 375 / 2 * 4
    base = 2 * (3_000_000 + head) + attention
    tuned = base + 2 * 500_000

    def needed(**changed: bool) -> tuple[float, float, float]:
        found = work(replace(SHAPE, **changed), load, checkpointing=False)
        return found.train_token, found.valid_token, found.reference_token

    train, valid, reference = needed()
    assert (valid, reference) == (tuned, 0)
    assert needed(validates_base=True) == (train, valid + base, 0)
    assert needed(needs_reference=True) == (train, valid, base)
    both = needed(needs_reference=True, needs_mismatched=True)
    assert both == (train + tuned, valid + tuned, 2 * base)


def test_the_reference_is_billed_once() -> None:
    """1,500 tokens of training and 500 of validation, unless the run goes on from a step."""
    load = a_load(valid_tokens=500)
    plain, asking = (
        work(replace(SHAPE, needs_reference=on), load, checkpointing=False) for on in (False, True)
    )
    without, with_it, resumed = (
        bill(one, load, GPU, flops=1e9, done_steps=done)
        for one, done in ((plain, 0), (asking, 0), (asking, 1))
    )
    hours = 2000 * asking.reference_token / 1e9 / 3600
    assert with_it.reference_hours == pytest.approx(hours)
    assert with_it.hours == pytest.approx(without.hours + hours)
    assert resumed.reference_hours == 0
    assert without.reference_hours == 0


@pytest.mark.parametrize(("epochs", "lr", "odd"), [(3, 1e-4, []), (20, 1e-2, ["epochs"])])
def test_a_plan_advises_for_preferences(
    epochs: int, lr: float, odd: list[str], tmp_path: Path
) -> None:
    plan = estimate_run(replace(asked(DPO(), tmp_path), epochs=epochs, lr=lr))
    found = {advice.about: advice for advice in plan.advice}
    assert "1 to 3 for preferences" in found["epochs"].text
    assert "1e-4 to 1e-3 for preferences" in found["learning rate"].text
    assert [about for about, advice in found.items() if advice.heed] == odd
