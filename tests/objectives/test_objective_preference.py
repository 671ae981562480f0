"""Preference losses: those of full logits of padded single rows, in other people's model code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import graftlab.objectives.policy as policy_module
from graftlab.adapters.base import Adapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.errors import ConfigError
from graftlab.models.base import Base
from graftlab.objectives.completions import preferred
from graftlab.objectives.cpo import CPO
from graftlab.objectives.dpo import DPO
from graftlab.objectives.kto import KTO
from graftlab.objectives.orpo import ORPO, _log1mexp
from graftlab.objectives.policy import Policy
from graftlab.objectives.simpo import SimPO
from graftlab.packing.mismatched import mismatched
from graftlab.packing.rows import make_batch
from graftlab.statistics import wilson_interval
from graftlab.training.evaluate import estimate
from graftlab.types import Batch
from pairs import answer_set, one_batch, padded, pair_set, some_answers, some_pairs
from slower import mostly_slow

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

MakeBase = Callable[..., Base]
PAIRS, ANSWERS = some_pairs(5), some_answers(7)


class Plain:
    """The same base and adapter in transformers and PEFT alone, on padded rows."""

    def __init__(self, folder: Path, adapter: Path) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        base.config._attn_implementation = "eager"
        self.model = PeftModel.from_pretrained(base, adapter, is_trainable=True).eval()

    def logps(self, rows: list[tuple[list[int], list[int]]]) -> Tensor:
        """Log-probability of each answer, from all logits."""
        ids, mask, labels = padded(rows)
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        targets = labels[:, 1:]
        known = targets != -100
        chosen = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        return (chosen * known).sum(-1)

    def reference(self, rows: list[tuple[list[int], list[int]]]) -> Tensor:
        with torch.no_grad(), self.model.disable_adapter():
            return self.logps(rows)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        self.model.zero_grad()
        loss.backward()
        return {
            name.replace(".default", ""): parameter.grad
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }


def trained(base: Base) -> Adapter:
    adapter = attach(base, Lora(rank=4), seed=0, dtype=torch.float32)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    base.model.train()
    return adapter


@pytest.fixture(params=["qwen2", "gemma2"])
def both(request, make_base: MakeBase, make_miniature, tmp_path) -> tuple[Policy, Plain]:
    base = make_base(request.param)
    adapter = trained(base)
    adapter.save(tmp_path)
    return Policy(base, adapter), Plain(make_miniature(request.param), tmp_path)


def referenced(policy: Policy, batch: Batch) -> Batch:
    """The batch with what the base makes of its segments."""
    with torch.no_grad(), policy.adapter.disabled():
        return replace(batch, reference=policy.segment_logps(batch)[0])


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    for _, parameter in policy.adapter.named_parameters():
        parameter.grad = None
    loss.backward()
    return {name: p.grad for name, p in policy.adapter.named_parameters()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert len(ours) >= 16
    for name, gradient in theirs.items():
        assert gradient.norm() > 0
        assert (ours[name] - gradient).norm() < 1e-4 * gradient.norm(), name


def nll(logps: Tensor, answers: list[list[int]]) -> Tensor:
    return -logps / torch.tensor([len(answer) for answer in answers])


def plain_loss(objective: Any, plain: Plain) -> Tensor:
    """Mean loss over PAIRS, from the formulas of the papers."""
    better = [(prompt, chosen) for prompt, chosen, _ in PAIRS]
    worse = [(prompt, rejected) for prompt, _, rejected in PAIRS]
    chosen, rejected = plain.logps(better), plain.logps(worse)
    counts = [torch.tensor([len(answer) for _, answer in side]) for side in (better, worse)]
    per_token = chosen / counts[0], rejected / counts[1]
    beta = objective.beta
    if isinstance(objective, ORPO):
        p, q = per_token[0].double().exp(), per_token[1].double().exp()
        odds = (p / (1 - p)) / (q / (1 - q))
        return (-per_token[0] - beta * torch.sigmoid(odds.log()).log().float()).mean()
    if isinstance(objective, SimPO):
        margin = beta * (per_token[0] - per_token[1]) - objective.gamma
        return (-torch.sigmoid(margin).log() - objective.sft_weight * per_token[0]).mean()
    if isinstance(objective, CPO):
        ratios = chosen, rejected
    else:
        ratios = chosen - plain.reference(better), rejected - plain.reference(worse)
    h, e = ratios[0] - ratios[1], objective.label_smoothing
    right, wrong = torch.sigmoid(beta * h).log(), torch.sigmoid(-beta * h).log()
    kind = getattr(objective, "loss", "sigmoid")
    if kind == "hinge":
        losses = torch.clamp(1 - beta * h, min=0)
    elif kind == "ipo":
        losses = (ratios[0] / counts[0] - ratios[1] / counts[1] - 1 / (2 * beta)) ** 2
    elif kind == "robust":
        losses = (-(1 - e) * right + e * wrong) / (1 - 2 * e)
    else:
        losses = -(1 - e) * right - e * wrong
    return (losses - objective.sft_weight * per_token[0]).mean()


OBJECTIVES = [
    DPO(),
    DPO(beta=0.5, label_smoothing=0.2),
    DPO(beta=0.3, sft_weight=0.7),
    DPO(loss="ipo", beta=0.2),
    DPO(loss="hinge", beta=0.4),
    DPO(loss="robust", label_smoothing=0.1),
    ORPO(beta=0.6),
    SimPO(beta=2.5, gamma=0.4),
    SimPO(sft_weight=0.3),
    CPO(),
    CPO(beta=0.3, label_smoothing=0.1, sft_weight=0.0),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("shared", mostly_slow([True, False], True), ids=["shared", "apart"])
def test_pairs_equal_padded_rows(objective, shared, both):
    policy, plain = both
    batch = referenced(policy, one_batch(pair_set(PAIRS, shared=shared)))
    if not objective.needs_reference:
        batch = replace(batch, reference=None)
    terms = objective.terms(policy, batch)
    assert batch.step_units == len(PAIRS)
    loss = terms["loss"] / batch.step_units
    wanted = plain_loss(objective, plain)
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert_equal(gradients(policy, loss), plain.gradients(wanted))


def plain_kto(objective: KTO, plain: Plain) -> tuple[Tensor, float]:
    rows = [(prompt, answer) for prompt, answer, _ in ANSWERS]
    mixed = [(prompt, ANSWERS[n - 1][1]) for n, (prompt, _, _) in enumerate(ANSWERS)]
    with torch.no_grad():
        z = max(0.0, (plain.logps(mixed) - plain.reference(mixed)).mean().item())
    r = plain.logps(rows) - plain.reference(rows)
    desirable = torch.tensor([good for _, _, good in ANSWERS])
    value = torch.where(
        desirable,
        objective.desirable_weight * (1 - torch.sigmoid(objective.beta * (r - z))),
        objective.undesirable_weight * (1 - torch.sigmoid(objective.beta * (z - r))),
    )
    return value.mean(), z


@pytest.mark.parametrize(
    "objective", [KTO(), KTO(beta=0.4, desirable_weight=1.3, undesirable_weight=0.6)], ids=str
)
def test_kto_equals_padded_rows(objective, both):
    policy, plain = both
    tokens = answer_set(ANSWERS)
    batch = referenced(policy, one_batch(tokens))
    mixed = referenced(policy, one_batch(mismatched(tokens, max_length=100)))
    policy.estimate = estimate(policy, objective, [mixed], autocast=nullcontext)
    loss = objective.terms(policy, batch)["loss"] / batch.step_units
    wanted, z = plain_kto(objective, plain)
    assert max(0.0, policy.estimate) == pytest.approx(z, abs=1e-4)
    assert abs(policy.estimate) > 0.01  # above 0 on one of the bases, below on the other
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert_equal(gradients(policy, loss), plain.gradients(wanted))


@pytest.mark.parametrize("objective", [*OBJECTIVES[::3], KTO()], ids=str)
def test_no_pair_is_a_zero_with_a_graph(objective, make_base):
    """A process that has no rows left takes part with a gradient of zeros."""
    base = make_base()
    policy = Policy(base, trained(base))
    policy.estimate = 0.0
    tokens = pair_set(PAIRS)
    tokens.reference = np.zeros(len(tokens.segments), np.float32)
    batch = make_batch(tokens, [], step_units=3)
    terms = objective.terms(policy, batch)
    assert {name: value.item() for name, value in terms.items()} == dict.fromkeys(terms, 0.0)
    found = gradients(policy, terms["loss"] / batch.step_units)
    assert len(found) >= 16
    assert not any(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("objective", [DPO(), ORPO(), SimPO(), CPO()], ids=lambda o: o.measure())
def test_chunks_change_nothing(objective, make_base, monkeypatch):
    base = make_base()
    policy = Policy(base, trained(base))
    batch = referenced(policy, one_batch(pair_set(PAIRS)))
    found = []
    for rows in (1000, 5):
        monkeypatch.setattr(policy_module, "CHUNK_ELEMENTS", rows * base.vocab_size)
        terms = objective.terms(policy, batch)
        found.append((terms["loss"].item(), gradients(policy, terms["loss"])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert_equal(found[0][1], found[1][1])


def test_weights_of_labels_count_in_answers(make_base):
    """A label of weight 0 is as one that is not there; others add as much of their nats."""
    base = make_base()
    policy = Policy(base, trained(base))
    batch = one_batch(pair_set(PAIRS[:1]))
    sums, counts = policy.segment_logps(batch)
    weights = torch.where(batch.labels == batch.labels[0, -1], 0.0, 0.5)
    lighter, fewer = policy.segment_logps(replace(batch, weights=weights))
    assert lighter[1].item() == pytest.approx(sums[1].item() / 2, rel=1e-5)
    assert fewer[2].item() == (counts[2].item() - 1) / 2
    assert sums[2] / 2 < lighter[2] < 0


def test_odds_stay_exact_where_an_answer_is_nearly_certain_or_impossible():
    values = torch.tensor([-1e-6, -1e-3, -0.5, -2.0, -30.0], requires_grad=True)
    wanted = torch.log(-torch.expm1(values.detach().double()))
    found = _log1mexp(values)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-5, abs=1e-12)
    found.sum().backward()
    assert values.grad.isfinite().all()
    assert _log1mexp(torch.zeros(1)).isfinite().all()


def test_ties_are_halves_and_shares_have_wilsons_interval():
    rewards = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 2.0])
    assert preferred(*rewards).tolist() == [1.0, 0.5, 0.0]
    assert wilson_interval(7, 10) == pytest.approx((0.39678, 0.89221), abs=1e-5)
    assert wilson_interval(0, 5) == pytest.approx((0.0, 0.43448), abs=1e-5)
    with pytest.raises(ValueError, match="without a trial"):
        wilson_interval(0, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPO(loss="sigmod"), "sigmoid"),
        (lambda: DPO(beta=0), "objective.beta"),
        (lambda: DPO(label_smoothing=0.5), "below 0.5"),
        (lambda: DPO(loss="ipo", label_smoothing=0.1), "not ipo"),
        (lambda: CPO(label_smoothing=0.7), "below 0.5"),
        (lambda: SimPO(gamma=-1), "objective.gamma"),
        (lambda: ORPO(beta=-1), "objective.beta"),
        (lambda: KTO(undesirable_weight=-1), "objective.undesirable_weight"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_measure_names_what_changes_its_scale():
    assert DPO(beta=0.7).measure() == DPO().measure() == "DPO sigmoid loss per pair"
    assert DPO(loss="ipo", beta=0.7).measure() == "DPO ipo loss per pair, beta=0.7"
    assert KTO(desirable_weight=2).measure() == "KTO loss per answer, desirable_weight=2"
