"""Plans of students: every weight is trained, and the teacher's weights are there too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graftlab.adapters.attach import attach
from graftlab.adapters.draft import DraftModel
from graftlab.adapters.lora import Lora
from graftlab.data.demo import DemoData
from graftlab.machine import all_machines
from graftlab.models.tiny import ASSET, TinyModel
from graftlab.objectives.distill import Distill
from graftlab.objectives.sft import SFT
from graftlab.planning.estimate import estimate_run
from graftlab.planning.show import show
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.precision import Precision
from graftlab.verbs.plan import PlanSpec


@pytest.fixture
def student() -> PlanSpec:
    return PlanSpec(
        model=DraftModel(of=str(ASSET)),
        data=DemoData(limit=40),
        objective=Distill(teacher=str(ASSET)),
        optimizer=AdamW(),
        lora=Lora(full=True),
        precision=Precision(name="bf16-mixed"),
        machine=all_machines()["h100"],  # whose rates are known: nothing is measured
        compile="off",
    )


def test_weights_of_student_and_teacher_are_counted(student: PlanSpec) -> None:
    plan = estimate_run(student)
    base = student.model.load(dtype=torch.float32, device=torch.device("cpu"))
    adapter = attach(base, student.lora, seed=0, dtype=torch.float32)
    assert plan.shape.trainable == plan.shape.parameters == adapter.num_trainable
    terms = plan.memory.terms()
    assert terms["base"] == terms["adapter"] == 4 * adapter.num_trainable
    assert terms["optimizer"] == 8 * adapter.num_trainable
    teacher = TinyModel().load(dtype=torch.bfloat16, device=torch.device("cpu"))
    assert terms["teacher"] == 2 * teacher.num_parameters
    assert plan.memory.total == sum(terms.values())
    alone = estimate_run(replace(student, objective=SFT()))
    assert "teacher" not in alone.memory.terms()
    assert plan.bill is not None
    assert alone.bill is not None
    assert alone.bill.hours < plan.bill.hours


def test_answers_that_are_not_drawn_yet_are_said_to_be_estimated(student: PlanSpec) -> None:
    taught = replace(student, objective=Distill(teacher=str(ASSET), on="teacher"))
    assert estimate_run(student).load.exact
    assert not estimate_run(taught).load.exact


def test_a_student_s_plan_is_shown(student: PlanSpec, tmp_path: Path) -> None:
    from rich.console import Console

    with (tmp_path / "plan.txt").open("w") as file:
        show(estimate_run(student), Console(file=file, width=120))
    text = (tmp_path / "plan.txt").read_text()
    assert "all weights are trained" in text
    assert "frozen weights of the model learnt from" in text
    assert "lora.rank" not in text
