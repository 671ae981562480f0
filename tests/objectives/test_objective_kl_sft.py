"""KL-SFT: the loss and gradients of padded rows in plain PEFT, and a base that is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import graftlab.objectives.policy as policy_module
from graftlab.adapters.attach import attach
from graftlab.adapters.base import Adapter
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError
from graftlab.models.base import Base
from graftlab.objectives.kl_sft import KLSFT
from graftlab.objectives.policy import Policy
from graftlab.objectives.sft import SFT
from graftlab.types import IGNORE, Batch
from miniatures import flat_batch, single_documents

MakeBase = Callable[..., Base]
LENGTHS = [33, 8, 40]
ADAPTERS = {
    "lora": Lora(rank=4),
    "dora": Lora(rank=4, dora=True),
    "rslora": Lora(rank=4, rslora=True, targets="attn"),
    "head": Lora(rank=4, targets=["q_proj", "lm_head"]),
    "saved": Lora(rank=4, modules_to_save=["lm_head"]),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
]


def trained(base: Base, lora: Lora) -> Adapter:
    """An adapter whose every weight matters."""
    adapter = attach(base, lora, seed=0, dtype=torch.float32)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    base.model.train()
    return adapter


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    assert policy.adapter is not None
    named = policy.adapter.named_parameters()
    found = torch.autograd.grad(loss, [parameter for _, parameter in named])
    return {name: gradient for (name, _), gradient in zip(named, found, strict=True)}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], *, within: float = 1e-4) -> None:
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert wanted.norm() > 0, name
        assert (ours[name] - wanted).norm() <= within * wanted.norm(), name


def plain(
    folder: Path, adapter: Path, batch: Batch, objective: KLSFT
) -> tuple[float, dict[str, Tensor]]:
    """Transformers and PEFT as they come, padded rows, all logits, the definition in fp64."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tuned = PeftModel.from_pretrained(model, str(adapter), is_trainable=True).eval()
    rows = single_documents(batch)
    width = max(row.num_tokens for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : row.num_tokens] = row.input_ids[0]
        labels[index, : row.num_tokens] = row.labels[0]
        mask[index, : row.num_tokens] = 1
    where = labels != IGNORE
    with torch.no_grad(), tuned.disable_adapter():
        base = tuned(ids, attention_mask=mask).logits[where].double()
    logits = tuned(ids, attention_mask=mask).logits[where].double()
    nll = -logits.log_softmax(-1).gather(1, labels[where][:, None]).sum()
    p, q = ((one / objective.kl_tau).softmax(-1) for one in (base, logits))
    if objective.kl_direction == "inverse":
        p, q = q, p
    kl = (p * (p / q).log()).sum()
    loss = nll + objective.kl_lambda * objective.kl_tau**2 * kl
    loss.backward()
    weights = {n: p for n, p in tuned.named_parameters() if p.requires_grad}
    named = {
        n.replace(".default", "").replace("modules_to_save.", ""): p for n, p in weights.items()
    }
    return loss.item(), {n: p.grad for n, p in named.items() if p.grad is not None}


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(
    "objective",
    [KLSFT(kl_lambda=20.0), KLSFT(kl_lambda=8.0, kl_tau=2.5, kl_direction="inverse")],
    ids=["forward", "inverse"],
)
def test_loss_and_gradients_are_those_of_plain_peft(
    name: str,
    objective: KLSFT,
    make_base: MakeBase,
    qwen2_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In chunks and in one piece; the KL term is a good part of both."""
    base = make_base()
    policy, batch = Policy(base, trained(base, ADAPTERS[name])), flat_batch(LENGTHS)
    assert policy.adapter is not None
    policy.adapter.save(tmp_path)
    wanted, exact = plain(qwen2_folder, tmp_path, batch, objective)
    for rows in (5, 1000):
        monkeypatch.setattr(policy_module, "CHUNK_ELEMENTS", rows * base.vocab_size)
        terms = objective.terms(policy, batch)
        assert terms["loss"].item() == pytest.approx(wanted, rel=1e-5)
        found = gradients(policy, terms["loss"])
        norms = {n: g for n, g in exact.items() if g.norm() > 0}
        same({n.removesuffix(".weight"): g for n, g in found.items() if g.norm() > 0},
             {n.removesuffix(".weight"): g for n, g in norms.items()})  # fmt: skip
        assert len(norms) >= 4
    ce = SFT().terms(policy, batch)["loss"]
    assert terms["loss"].item() > 1.01 * ce.item()
    assert terms["nll"].item() == pytest.approx(ce.item(), rel=1e-6)
    part = objective.kl_lambda * objective.kl_tau**2 * terms["kl"].item()
    assert part == pytest.approx(terms["loss"].item() - ce.item(), rel=1e-4)
    far = gradients(policy, ce)
    assert max((far[n] - g).norm() / g.norm() for n, g in found.items() if g.norm() > 0) > 0.05


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_a_fresh_adapter_has_no_kl_and_no_pull(name: str, make_base: MakeBase) -> None:
    base = make_base()
    adapter = attach(base, ADAPTERS[name], seed=0, dtype=torch.float32)
    base.model.train()
    policy, batch = Policy(base, adapter), flat_batch(LENGTHS)
    terms = KLSFT(kl_lambda=1.0).terms(policy, batch)
    assert abs(terms["kl"].item()) < 1e-4  # of 26 labels; DoRA divides by a norm and multiplies
    pull = gradients(policy, KLSFT(kl_lambda=1e6).terms(policy, batch)["loss"])
    only = gradients(policy, SFT().terms(policy, batch)["loss"])
    scale = max(gradient.norm() for gradient in only.values())
    assert max((pull[n] - only[n]).norm() for n in only) / 1e6 < 1e-5 * scale
    moved = Policy(base, _moved(adapter))
    far = gradients(moved, KLSFT(kl_lambda=1e6).terms(moved, batch)["loss"])
    assert max(gradient.norm() for gradient in far.values()) / 1e6 > 1e-2 * scale


def _moved(adapter: Adapter) -> Adapter:
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(torch.full_like(parameter, 0.02))
    return adapter


def test_without_lambda_it_is_sft(make_base: MakeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base()
    policy, batch = Policy(base, trained(base, Lora(rank=4))), flat_batch(LENGTHS)
    passes: list[int] = []
    hidden = base.hidden
    monkeypatch.setattr(base, "hidden", lambda b: passes.append(1) or hidden(b))
    ours = KLSFT(kl_lambda=0.0).terms(policy, batch)["loss"]
    assert len(passes) == 1
    assert torch.equal(ours, SFT().terms(policy, batch)["loss"])
    KLSFT().terms(policy, batch)
    assert len(passes) == 4


@pytest.mark.parametrize("kind", ["lora", "dora", "afm"])
def test_the_base_s_pass_draws_no_dropout_and_disturbs_none(
    kind: str, make_base: MakeBase, make_afm: MakeBase
) -> None:
    """With dropout the tuned pass is that of SFT, mask by mask; the base is the bare model."""
    base = make_afm() if kind == "afm" else make_base()
    batch = flat_batch([12, 9], vocab_size=base.vocab_size)
    with torch.no_grad():
        bare = base.hidden(batch)[0][batch.labels[0] != IGNORE]
    lora = Lora(rank=4, dropout=0.5, dora=kind == "dora", targets="all-linear")
    adapter = trained(base, lora)
    policy = Policy(base, adapter)
    found = {}
    for name, objective in (("sft", SFT()), ("kl", KLSFT()), ("again", KLSFT())):
        adapter.set_step(seed=3, step=7, micro_step=2)
        found[name] = objective.terms(policy, batch)
    assert torch.equal(found["kl"]["nll"], found["sft"]["loss"].detach())
    assert torch.equal(found["kl"]["loss"], found["again"]["loss"])
    assert torch.equal(policy.reference(batch), bare)
    adapter.set_step(seed=3, step=8, micro_step=2)
    other = KLSFT().terms(policy, batch)
    assert not torch.equal(other["nll"], found["kl"]["nll"])  # dropout is drawn at all


@pytest.mark.parametrize("kind", ["lora", "dora", "afm"])
def test_recomputed_layers_give_the_same_gradients(
    kind: str, make_base: MakeBase, make_afm: MakeBase
) -> None:
    """Gradient checkpointing recomputes with the adapter on, though the base's pass had it off."""
    base = make_afm() if kind == "afm" else make_base()
    batch = flat_batch([12, 9], vocab_size=base.vocab_size)
    lora = Lora(rank=4, dropout=0.3, dora=kind == "dora", targets="all-linear")
    adapter = trained(base, lora)
    policy, found = Policy(base, adapter), []
    for on in (False, True):
        base.set_checkpointing(on)
        adapter.set_step(seed=0, step=1, micro_step=0)
        found.append(gradients(policy, KLSFT(kl_lambda=2.0).terms(policy, batch)["loss"]))
    same(*found, within=1e-6)


def test_apple_s_model_keeps_to_its_base(make_afm: MakeBase) -> None:
    """Against all logits of both, and a fresh adapter has no KL."""
    base = make_afm()
    batch = flat_batch([12, 9, 30], vocab_size=base.vocab_size)
    where = batch.labels[0] != IGNORE
    with torch.no_grad():
        p = base.logits(base.hidden(batch)[0])[where].double().softmax(-1)
    fresh = Policy(
        base, attach(base, Lora(rank=4, targets="all-linear"), seed=0, dtype=torch.float32)
    )
    base.model.train()
    assert KLSFT().terms(fresh, batch)["kl"].item() == pytest.approx(0.0, abs=1e-6)
    fresh.adapter.detach()
    policy = Policy(base, trained(base, Lora(rank=4, targets="all-linear")))
    terms = KLSFT(kl_lambda=3.0).terms(policy, batch)
    q = base.logits(base.hidden(batch)[0])[where].double().softmax(-1)
    nll = -q.gather(1, batch.labels[0][where][:, None]).log().sum()
    wanted = nll + 3.0 * (p * (p / q).log()).sum()
    assert terms["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert terms["kl"].item() > 0.1
    same(gradients(policy, terms["loss"]), gradients(policy, wanted))


def test_bf16_autocast_keeps_every_gradient(make_base: MakeBase) -> None:
    """Weights cast in the pass without gradients must not serve the one with them."""
    base = make_base()
    adapter = trained(base, Lora(rank=4, modules_to_save=["lm_head"]))
    policy, batch = Policy(base, adapter), flat_batch(LENGTHS)
    exact = gradients(policy, KLSFT(kl_lambda=2.0).terms(policy, batch)["loss"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = KLSFT(kl_lambda=2.0).terms(policy, batch)["loss"]
    assert loss.dtype == torch.float32
    same(gradients(policy, loss), exact, within=0.1)


def test_packed_is_alone(make_base: MakeBase) -> None:
    base = make_base()
    policy, batch = Policy(base, trained(base, Lora(rank=4))), flat_batch(LENGTHS)
    packed = KLSFT().terms(policy, batch)["loss"]
    alone = sum(KLSFT().terms(policy, one)["loss"] for one in single_documents(batch))
    assert packed.item() == pytest.approx(alone.item(), rel=1e-6)
    same(gradients(policy, packed), gradients(policy, alone))


def test_no_label_is_a_zero_with_a_graph(make_base: MakeBase) -> None:
    base = make_base()
    policy, batch = Policy(base, trained(base, Lora(rank=4))), flat_batch([5])
    batch.labels.fill_(IGNORE)
    loss = KLSFT().terms(policy, batch)["loss"]
    assert loss.item() == 0.0
    assert not any(gradient.any() for gradient in gradients(policy, loss).values())


def test_a_teacher_stands_in_for_the_base(make_base: MakeBase) -> None:
    """Also one with fewer ids: what lies beyond is nobody's word."""
    base = make_base()
    teacher = make_base("llama")
    policy = Policy(base, trained(base, Lora(rank=4)), Policy(teacher, None))
    batch = flat_batch(LENGTHS)
    objective = KLSFT(kl_lambda=1.0, teacher="t")
    where = batch.labels[0] != IGNORE
    with torch.no_grad():
        logits = [one.logits(one.hidden(batch)[0])[where].double() for one in (teacher, base)]
        p, q = (one.softmax(-1) for one in logits)
    terms = objective.terms(policy, batch)
    assert terms["kl"].item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)
    assert not objective.asks_base()
    narrow = teacher.logits
    teacher.logits = lambda hidden: narrow(hidden)[:, :-9]
    p, q = (one[:, :-9].softmax(-1) for one in logits)
    terms = objective.terms(policy, batch)
    assert terms["kl"].item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)
    nll = SFT().terms(policy, batch)["loss"].item()
    assert terms["nll"].item() == pytest.approx(nll, rel=1e-6)


def test_validation_is_cross_entropy_with_the_kl_beside_it(make_base: MakeBase) -> None:
    """At temperature 1 whatever is trained, and also where the adapter is off already."""
    base = make_base()
    policy, batch = Policy(base, trained(base, Lora(rank=4))), flat_batch(LENGTHS)
    with torch.no_grad():
        sharp = KLSFT().validation(policy, batch)
        found = KLSFT(kl_tau=3.0, kl_lambda=0.0).validation(policy, batch)
        assert torch.equal(found["loss"], sharp["loss"])
        assert torch.equal(found["kl"], sharp["kl"])
        assert torch.allclose(found["loss"], policy.nll(batch))
        assert found["kl"].item() > 0.1
        assert policy.adapter is not None
        with policy.adapter.disabled():
            assert KLSFT().validation(policy, batch)["kl"].item() == 0.0
            assert torch.equal(policy.hidden(batch)[0][batch.labels[0] != IGNORE],
                               policy.reference(batch))  # fmt: skip
        with policy.adapter.scaled(0.5):
            half = KLSFT().validation(policy, batch)["kl"].item()
        assert 0 < half < found["kl"].item()
        assert torch.equal(KLSFT().validation(policy, batch)["kl"], sharp["kl"])


def test_a_budget_turns_lambda_up_and_down() -> None:
    """Twice the room used: lambda falls; a rise that would leave it: lambda grows before it has."""
    objective, state = KLSFT(kl_lambda=0.1, kl_budget=0.2), dict[str, float]()
    numbers = {"loss": 2.0, "kl": 0.01}
    assert objective.after_validation(numbers, state)
    assert numbers["kl_lambda"] == 0.1
    assert state == {"kl_lambda": pytest.approx(0.05), "kl": 0.01}  # halved at most
    numbers = {"loss": 1.9, "kl": 0.14}
    assert objective.after_validation(numbers, state)  # within the budget still
    assert numbers["kl_lambda"] == pytest.approx(0.05)
    assert state["kl_lambda"] == pytest.approx(0.05 * (0.14 + 0.13) / 0.18)
    assert not objective.after_validation({"loss": 1.8, "kl": 3.0}, state)
    assert state["kl_lambda"] == pytest.approx(0.05 * (0.14 + 0.13) / 0.18 * 4)
    before = state["kl_lambda"]
    assert objective.after_validation({"loss": 1.8, "kl": 0.18}, state)
    assert state["kl_lambda"] == pytest.approx(before)  # where it aims


def test_the_adjusted_lambda_is_the_one_trained_with(make_base: MakeBase) -> None:
    base = make_base()
    policy, batch = Policy(base, trained(base, Lora(rank=4))), flat_batch(LENGTHS)
    wanted = KLSFT(kl_lambda=0.8).terms(policy, batch)["loss"]
    policy.state["kl_lambda"] = 0.8
    assert torch.equal(KLSFT(kl_lambda=0.1, kl_budget=0.2).terms(policy, batch)["loss"], wanted)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kl_lambda": -0.1}, "objective.kl_lambda"),
        ({"kl_tau": 0.0}, "objective.kl_tau"),
        ({"kl_direction": "reverse"}, "objective.kl_direction"),
        ({"kl_budget": 0.0}, "objective.kl_budget"),
        ({"kl_budget": 0.1, "kl_lambda": 0.0}, "objective.kl_lambda, which is 0"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KLSFT(**keys)
