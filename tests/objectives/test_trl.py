"""Ten steps beside TRL's trainers: the same losses and rewards, in fp32, from the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.objectives.base import Objective
from graftlab.objectives.cpo import CPO
from graftlab.objectives.dpo import DPO
from graftlab.objectives.kto import KTO
from graftlab.objectives.orpo import ORPO
from graftlab.objectives.policy import Policy
from graftlab.objectives.simpo import SimPO
from graftlab.text.encode import TokenSet
from graftlab.types import Batch
from pairs import answer_set, loader, pair_set

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
STEPS, EACH, LR = 10, 4, 1e-3

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "sings",
    "rivers",
]


def sentence(seed: int, length: int) -> str:
    return " ".join(WORDS[(seed * 7 + n * n * 3 + n) % len(WORDS)] for n in range(length))


def rows() -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Tell me: {sentence(n, 4 + n % 6)}?",
            "chosen": f" {sentence(n + 1, 3 + n % 4)}",
            "rejected": f" {sentence(n + 5, 2 + n % 5)} no",
            "completion": f" {sentence(n + 1, 3 + n % 4)}",
            "label": n % 3 != 1,
        }
        for n in range(STEPS * EACH)
    ]


@pytest.fixture
def started(make_base, tmp_path) -> tuple[Policy, Path]:
    """A policy whose adapter matters already, and the folder of the same."""
    base = make_base("qwen2")
    adapter = attach(base, Lora(rank=4), seed=0, dtype=torch.float32)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    adapter.save(tmp_path / "adapter")
    base.model.train()
    return Policy(base, adapter), tmp_path / "adapter"


def theirs(kind: str, base: Path, adapter: Path, out: Path, columns: list[str], **own: Any) -> Any:
    """One of TRL's trainers on the rows, in their order."""
    pytest.importorskip("trl")
    import trl
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if kind in ("ORPO", "CPO"):
        package = pytest.importorskip(f"trl.experimental.{kind.lower()}")
    else:
        package = trl
    config, trainer = getattr(package, f"{kind}Config"), getattr(package, f"{kind}Trainer")
    if kind in ("ORPO", "CPO"):
        own |= {
            "max_completion_length": 64,
            "remove_unused_columns": False,
        }
    args = config(
        output_dir=str(out),
        per_device_train_batch_size=EACH,
        max_steps=STEPS,
        learning_rate=LR,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=0.0,
        logging_steps=1,
        logging_strategy="steps",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        max_length=128,
        train_sampling_strategy="sequential",
        **own,
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    data = [{name: row[name] for name in columns} for row in rows()]
    made = trainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    made.train()
    return made


def batches(policy: Policy, tokens: TokenSet) -> list[Batch]:
    """Those of all steps; the reference is the adapter as it is now, as TRL takes it."""
    steps = [[*range(first, first + EACH)] for first in range(0, len(tokens), EACH)]
    with torch.no_grad(), policy.base.evaluating():
        return [
            replace(batch, reference=policy.segment_logps(batch)[0])
            for batch in loader(tokens, rows=steps, batch_size=1)
        ]


def ours(
    policy: Policy, objective: Objective, tokens: TokenSet, mixed: TokenSet | None = None
) -> list[dict[str, float]]:
    """What is logged of every step."""
    parameters = [p for _, p in policy.adapter.named_parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    others = iter(batches(policy, mixed) if mixed is not None else ())
    found = []
    for batch in batches(policy, tokens):
        if mixed is not None:
            with torch.no_grad():
                sums = objective.estimate(policy, next(others))
            policy.estimate = (sums[0] / sums[1]).item()
        terms = objective.terms(policy, batch)
        optimizer.zero_grad()
        (terms["loss"] / batch.step_units).backward()
        optimizer.step()
        sums = {name: value.item() for name, value in terms.items()}
        found.append(objective.logged(sums, batch.step_units))
    return found


def assert_same(ours: list[dict[str, float]], history: list[dict[str, Any]]) -> None:
    names = {
        "loss": "loss",
        "rewards_chosen": "rewards/chosen",
        "rewards_rejected": "rewards/rejected",
        "reward_margin": "rewards/margins",
    }
    logged = [row for row in history if "loss" in row]
    assert len(logged) == len(ours) == STEPS
    for step, (mine, other) in enumerate(zip(ours, logged, strict=True)):
        for name, key in names.items():
            assert mine[name] == pytest.approx(float(other[key]), abs=1e-4), (step, name)
    assert abs(ours[0]["loss"] - ours[-1]["loss"]) > 1e-3  # it trains


@pytest.mark.parametrize(
    "objective",
    [DPO(), DPO(loss="ipo", beta=0.5), DPO(loss="hinge"), DPO(loss="robust", label_smoothing=0.1)],
    ids=lambda objective: objective.loss,
)
def test_dpo(objective, started, qwen2_folder, tmp_path):
    policy, adapter = started
    own = {"loss_type": objective.loss, "beta": objective.beta}
    own["label_smoothing"] = objective.label_smoothing
    columns = ["prompt", "chosen", "rejected"]
    trainer = theirs("DPO", qwen2_folder, adapter, tmp_path / "out", columns, **own)
    data = trainer.train_dataset
    pairs = [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in data]
    assert_same(ours(policy, objective, pair_set(pairs)), trainer.state.log_history)


def test_kto(started, qwen2_folder, tmp_path):
    policy, adapter = started
    objective = KTO(beta=0.2, desirable_weight=1.2, undesirable_weight=0.7)
    own = {"beta": 0.2, "desirable_weight": 1.2, "undesirable_weight": 0.7}
    columns = ["prompt", "completion", "label"]
    trainer = theirs("KTO", qwen2_folder, adapter, tmp_path / "out", columns, **own)
    data = trainer.train_dataset
    answers = [(row["prompt_ids"], row["completion_ids"], row["label"]) for row in data]
    mixed = [(row["prompt_ids"], row["KL_completion_ids"], True) for row in data]
    found = ours(policy, objective, answer_set(answers), answer_set(mixed))
    history = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["kl"] for row in found] == pytest.approx([row["kl"] for row in history], abs=1e-4)
    assert max(row["kl"] for row in found) > 0.01
    assert_same(found, history)


def labelled(row: dict[str, Any], side: str) -> tuple[list[int], list[int]]:
    """Prompt and answer of a row of the older trainers, by their labels."""
    ids, labels = row[f"{side}_input_ids"], row[f"{side}_labels"]
    first = next(place for place, label in enumerate(labels) if label != -100)
    return ids[:first], ids[first:]


@pytest.mark.parametrize(
    ("objective", "own"),
    [
        (CPO(beta=0.2, label_smoothing=0.1, sft_weight=0), {"label_smoothing": 0.1}),
        (SimPO(beta=2.0, gamma=0.6), {"loss_type": "simpo", "simpo_gamma": 0.6}),
    ],
    ids=["cpo", "simpo"],
)
def test_cpo_and_simpo(objective, own, started, qwen2_folder, tmp_path):
    """Without the term of cross-entropy, which TRL averages over the tokens of a whole batch."""
    policy, adapter = started
    own = {"beta": objective.beta, "cpo_alpha": 0.0, **own}
    columns = ["prompt", "chosen", "rejected"]
    trainer = theirs("CPO", qwen2_folder, adapter, tmp_path / "out", columns, **own)
    assert_same(ours(policy, objective, pair_set(pairs_of(trainer))), trainer.state.log_history)


def pairs_of(trainer: Any) -> list[tuple[list[int], list[int], list[int]]]:
    found = []
    for row in trainer.train_dataset:
        prompt, chosen = labelled(row, "chosen")
        other, rejected = labelled(row, "rejected")
        assert prompt == other
        found.append((prompt, chosen, rejected))
    return found


def test_orpo_odds(started, qwen2_folder, tmp_path):
    """TRL's cross-entropy also covers the prompt; the odds ratio and the rewards are the same."""
    policy, adapter = started
    columns = ["prompt", "chosen", "rejected"]
    out = tmp_path / "out"
    trainer = theirs("ORPO", qwen2_folder, adapter, out, columns, beta=0.3)
    tokens = pair_set(pairs_of(trainer))
    first = batches(policy, tokens)[0]
    terms = ORPO(beta=0.3).terms(policy, first)
    logged = next(row for row in trainer.state.log_history if "loss" in row)
    for name, key in [
        ("rewards_chosen", "rewards/chosen"),
        ("rewards_rejected", "rewards/rejected"),
    ]:
        assert terms[name].item() / EACH == pytest.approx(float(logged[key]), abs=1e-4)
    nll = -terms["rewards_chosen"].item() / 0.3
    odds = (nll - terms["loss"].item()) / 0.3 / EACH
    assert odds == pytest.approx(float(logged["log_odds_ratio"]), abs=1e-4)
