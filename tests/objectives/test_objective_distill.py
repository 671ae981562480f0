"""Distillation: values and gradients as in dense fp64, limits, chunks, and rounds of decoding."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from torch import Tensor

import graftlab.objectives.policy as policy_module
from graftlab.errors import ConfigError
from graftlab.objectives.distill import Distill, answers
from graftlab.objectives.divergence import acceptance, divergence
from graftlab.objectives.policy import Policy
from graftlab.objectives.rounds import expected_rounds
from graftlab.types import IGNORE, Batch
from miniatures import flat_batch
from tolerance import assert_same


def dense(student: Tensor, teacher: Tensor, kind: str, beta: float, temperature: float) -> Tensor:
    """The definitions, in probabilities and fp64; (n,) from (n, V)."""
    q = (student.double() / temperature).softmax(-1)
    p = (teacher.double() / temperature).softmax(-1)
    if kind == "inverse":
        return (q * (q / p).log()).sum(-1)
    if kind == "forward":
        return (p * (p / q).log()).sum(-1)
    m = beta * p + (1 - beta) * q
    return beta * (p * (p / m).log()).sum(-1) + (1 - beta) * (q * (q / m).log()).sum(-1)


def logits(seed: int, *, n: int = 7, vocab: int = 33) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, n, vocab, generator=generator)
    return student, teacher


KINDS = [("inverse", 0.5), ("forward", 0.5), ("jsd", 0.1), ("jsd", 0.5), ("jsd", 0.9)]


@pytest.mark.parametrize(("kind", "beta"), KINDS)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_values_and_gradients_are_those_of_the_definition(kind, beta, temperature):
    student, teacher = logits(3)
    ours, theirs = student.clone().requires_grad_(), student.double().requires_grad_()
    found = divergence(ours, teacher, kind=kind, beta=beta, temperature=temperature)
    wanted = dense(theirs, teacher, kind, beta, temperature)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=2e-5)
    found.sum().backward()
    wanted.sum().backward()
    assert_same(ours.grad.double(), theirs.grad, dtype=torch.float32)
    assert theirs.grad.abs().max() > 1e-3
    assert divergence(teacher, teacher, kind=kind, beta=beta).abs().max() < 1e-6


def test_jensen_shannon_tends_to_the_two_kls():
    student, teacher = (side.double() for side in logits(4))
    near = partial(divergence, student, teacher)
    assert torch.allclose(near(kind="jsd", beta=1e-7) / 1e-7, near(kind="forward"), rtol=1e-4)
    assert torch.allclose(near(kind="jsd", beta=1 - 1e-7) / 1e-7, near(kind="inverse"), rtol=1e-4)
    apart = (near(kind="forward") - near(kind="inverse")).abs().max()
    assert apart > 0.1  # or the two limits would not be told apart


def test_acceptance_is_what_sampling_accepts():
    student, teacher = logits(5, n=1)
    q, p = student[0].softmax(-1), teacher[0].softmax(-1)
    drawn = torch.multinomial(q, 40_000, True, generator=torch.Generator().manual_seed(1))
    kept = (torch.rand(40_000, generator=torch.Generator().manual_seed(2)) < (p / q)[drawn]).float()
    found = acceptance(student, teacher).item()
    assert found == pytest.approx(kept.mean().item(), abs=0.015)
    assert 0.05 < found < 0.95
    assert acceptance(teacher, teacher).item() == pytest.approx(1.0, abs=1e-6)


def test_rounds_are_those_of_the_closed_formula_on_a_long_answer():
    a, k = 0.7, 5
    rounds, kept = expected_rounds([a] * 4000, draft_tokens=k)
    per_round = (1 - a ** (k + 1)) / (1 - a)
    assert 4000 / rounds == pytest.approx(per_round, rel=2e-3)
    assert kept / rounds == pytest.approx(per_round - 1, rel=2e-3)


def test_rounds_are_those_of_simulated_decoding():
    acceptances, k, generator = [0.9, 0.2, 0.8, 1.0, 0.5, 0.7, 0.0, 0.95], 3, random.Random(0)
    rounds = kept = 0
    for _ in range(20_000):
        place = 0
        while place < len(acceptances):
            drafted = 0
            while drafted < k and place + drafted < len(acceptances):
                if generator.random() >= acceptances[place + drafted]:
                    break
                drafted += 1
            rounds, kept, place = rounds + 1, kept + drafted, place + drafted + 1
    expected = expected_rounds(acceptances, draft_tokens=k)
    assert expected[0] == pytest.approx(rounds / 20_000, rel=0.01)
    assert expected[1] == pytest.approx(kept / 20_000, rel=0.01)


@pytest.mark.parametrize(
    ("acceptances", "expected"), [([], (0, 0)), ([1.0] * 4, (1, 4)), ([0.0] * 4, (4, 0))]
)
def test_rounds_at_the_edges(acceptances, expected):
    assert expected_rounds(acceptances, draft_tokens=9) == expected


def test_answers_end_with_their_document_and_their_turn():
    labels = [IGNORE, 5, 6, 7, IGNORE, IGNORE, 8, 9, 3]
    batch = Batch(
        input_ids=torch.zeros(1, 9, dtype=torch.long),
        labels=torch.tensor([labels]),
        positions=torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0, 1]]),
        boundaries=torch.tensor([0, 3, 7, 9], dtype=torch.int32),
        step_units=6,
    )
    assert answers(batch) == [(0, 2), (2, 3), (3, 4), (4, 6)]


@pytest.fixture
def pair(make_base) -> Policy:
    """A two-layer student and another model of the same vocabulary as its teacher."""
    student = make_base("qwen2")
    student.model.requires_grad_(True)
    return Policy(student, None, Policy(make_base("llama"), None))


def whole(policy: Policy, batch: Batch) -> tuple[Tensor, Tensor]:
    """All logits of student and teacher at labelled positions."""
    where = batch.labels[0] != IGNORE
    both = [one.base.logits(one.hidden(batch)[0])[where] for one in (policy, policy.teacher)]
    return both[0], both[1]


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_the_loss_is_the_dense_one_whole_and_in_chunks(pair, monkeypatch, kind, beta):
    """Seven chunks and one: the same loss and gradients, which are those of all logits in fp64."""
    batch = flat_batch([20, 33, 9])
    objective = Distill(teacher="t", divergence=kind, beta=beta, temperature=1.5)
    found = []
    for elements in (1 << 24, 800 * 3):
        monkeypatch.setattr(policy_module, "CHUNK_ELEMENTS", elements)
        pair.base.model.zero_grad()
        loss = objective.terms(pair, batch)["loss"]
        loss.backward()
        gradients = [parameter.grad.clone() for parameter in pair.base.model.parameters()]
        found.append((loss.item(), gradients))
    student, teacher = whole(pair, batch)
    pair.base.model.zero_grad()
    wanted = dense(student, teacher, kind, beta, 1.5).sum()
    wanted.backward()
    exact = [parameter.grad for parameter in pair.base.model.parameters()]
    for loss, gradients in found:
        assert loss == pytest.approx(wanted.item(), rel=1e-5)
        for ours, theirs in zip(gradients, exact, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item()))
    assert len(student) > 3 * 4  # more than one chunk
    assert all(parameter.grad is None for parameter in pair.teacher.base.model.parameters())


def test_no_label_is_a_zero_with_a_graph(pair):
    batch = flat_batch([20, 33])
    batch.labels = torch.full_like(batch.labels, IGNORE)
    loss = Distill(teacher="t").terms(pair, batch)["loss"]
    assert loss.item() == 0.0
    loss.backward()
    assert any(parameter.grad is not None for parameter in pair.base.model.parameters())


def test_validation_reports_what_decoding_gains(pair):
    batch = flat_batch([20, 33, 9])
    objective = Distill(teacher="t", draft_tokens=4)
    with torch.no_grad():
        found = objective.validation(pair, batch)
        sums = {name: value.sum().item() for name, value in found.items()}
        student, teacher = whole(pair, batch)
    labels = int((batch.labels != IGNORE).sum())
    numbers = objective.metrics(sums, labels)
    wanted = torch.minimum(student.softmax(-1), teacher.softmax(-1)).sum(-1)
    assert numbers["loss"] == pytest.approx(dense(student, teacher, "inverse", 0, 1).mean().item())
    assert numbers["acceptance"] == pytest.approx(wanted.mean().item(), rel=1e-5)
    counts = [6, 11, 3]
    parts = [expected_rounds(p.tolist(), draft_tokens=4) for p in torch.split(wanted, counts)]
    rounds, kept = (sum(side) for side in zip(*parts, strict=True))
    assert numbers["accepted_tokens"] == pytest.approx(kept / rounds, rel=1e-5)
    same = Policy(pair.base, None, Policy(pair.base, None))
    with torch.no_grad():
        found = objective.validation(same, batch)
        sums = {name: value.sum().item() for name, value in found.items()}
    alike = objective.metrics(sums, labels)
    assert alike["acceptance"] == pytest.approx(1.0, abs=1e-5)
    assert alike["loss"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"divergence": "reverse"}, "objective.divergence"),
        ({"divergence": "jsd", "beta": 1.0}, "divergence=inverse"),
        ({"temperature": 0.0}, "objective.temperature"),
        ({"on": "student"}, "objective.on"),
        ({"draft_tokens": 0}, "objective.draft_tokens"),
    ],
)
def test_what_cannot_be_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        Distill(teacher="t", **keys)


def test_a_teacher_is_asked_for():
    with pytest.raises(ConfigError, match="needs objective.teacher=RUN"):
        Distill()
