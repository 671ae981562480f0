"""Models with recurrences, convolutions or linear attention: one conversation a pass, exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from branched import as_token_set, pair_documents
from chats import chats
from graftlab.adapters.attach import attach, load_adapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.store import FolderSource
from graftlab.adapters.targets import check_targets
from graftlab.errors import ConfigError, LeakError, ModelError
from graftlab.models.base import Base
from graftlab.models.hf import HFModel
from graftlab.models.probe import check_alone, check_isolation
from graftlab.models.probe_branches import check_branches
from graftlab.objectives.policy import Policy
from graftlab.objectives.sft import SFT
from graftlab.packing.plan import Packing
from graftlab.packing.rows import make_batch
from graftlab.planning.estimate import estimate_run
from graftlab.training.auto import resolve_auto
from graftlab.training.joint.groups import unfit
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.types import IGNORE
from miniatures import HYBRIDS, TRANSFORMERS, flat_batch, single_documents
from slower import mostly_slow
from training_spec import small_spec

MakeBase = Callable[..., Base]
MakeMiniature = Callable[[str], Path]
AUTO = Lora(rank=4, targets="auto")
BF16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)

FOUND = {
    "lfm2": {"in_proj", "out_proj", "q_proj", "w1"},
    "qwen3_next": {"in_proj_qkvz", "in_proj_ba", "out_proj", "q_proj"},
    "qwen3_5": {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj", "gate_proj"},
    "falcon_h1": {"in_proj", "q_proj", "gate_proj"},
    "granite4": {"in_proj", "q_proj", "input_linear"},
    "bamba": {"in_proj", "q_proj", "gate_proj"},
    "zamba2": {"in_proj", "q_proj", "gate_up_proj", "linear", "gate_up_proj_adapter_list.0.0"},
    "jamba": {"in_proj", "q_proj", "gate_proj"},
    "nemotron_h": {"in_proj", "q_proj", "up_proj"},
    "recurrent_gemma": {"linear_x", "linear_y", "linear_out", "q_proj"},
    "bailing_hybrid": {"f_proj", "o_proj", "kv_b_proj"},
}
"""Some of the projections around state and attention, as they are named when loaded."""


def attached(base: Base, lora: Lora = AUTO) -> Any:
    return attach(base, lora, seed=0, dtype=torch.float32)


def stirred(adapter: Any) -> None:
    """Weights with which the adapter does something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def own_gradients(base: Any, adapter: Any, batch: Any) -> tuple[float, list[Tensor]]:
    """Loss and gradients of the model's own forward pass, each document alone."""
    total = torch.zeros(())
    with base.plain():
        for one in single_documents(batch):
            logits = base.model(input_ids=one.input_ids, use_cache=False).logits[0]
            total = total + functional.cross_entropy(
                logits, one.labels[0], ignore_index=IGNORE, reduction="sum"
            )
        parameters = [parameter for _, parameter in adapter.named_parameters()]
        return float(total.detach()), list(torch.autograd.grad(total, parameters))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("kind", mostly_slow(HYBRIDS, *list(HYBRIDS)[::3]))
def test_loss_and_gradients_are_those_of_the_model_itself(
    kind: str, checkpointing: bool, make_base: MakeBase
) -> None:
    """Three documents in one batch: each must begin with an empty state."""
    base = make_base(kind)
    adapter = attached(base)
    stirred(adapter)
    batch = flat_batch([23, 5, 14])
    loss, expected = own_gradients(base, adapter, batch)
    base.set_checkpointing(checkpointing)
    terms = SFT().terms(Policy(base, adapter), batch)
    parameters = [parameter for _, parameter in adapter.named_parameters()]
    gradients = torch.autograd.grad(terms["loss"], parameters)
    assert terms["loss"].item() == pytest.approx(loss, rel=1e-5)
    assert len(expected) == len(gradients) > 3
    for ours, theirs in zip(gradients, expected, strict=True):
        assert theirs.norm() > 0
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.parametrize("kind", HYBRIDS)
def test_the_probe_passes_and_a_few_steps_lower_the_loss(kind: str, make_base: MakeBase) -> None:
    base = make_base(kind)
    adapter = attached(base)
    assert base.stateful_layers
    line = check_isolation(base, adapter, autocast=nullcontext)
    assert line.startswith("one document at a time")
    base.set_checkpointing(False)
    optimizer = AdamW().build(adapter.named_parameters(), lr=2e-2)
    policy, batch, losses = Policy(base, adapter), flat_batch([21]), []
    for _ in range(5):
        loss = SFT().terms(policy, batch)["loss"] / batch.step_units
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("kind", ["lfm2", "qwen3_5", "falcon_h1", "granite4"])
def test_branches_continue_their_prompts_state(kind: str, make_base: MakeBase) -> None:
    """A shared prompt or one for each: the same loss and gradients."""
    base = make_base(kind)
    adapter = attached(base)
    assert "branches" in check_branches(base, adapter, autocast=nullcontext)
    stirred(adapter)
    found = []
    for share_prompts in (True, False):
        tokens = as_token_set(pair_documents(), share_prompts=share_prompts)
        batch = make_batch(tokens, range(len(tokens)), step_units=1)
        loss = SFT().terms(Policy(base, adapter), batch)["loss"]
        parameters = [parameter for _, parameter in adapter.named_parameters()]
        found.append((loss.item(), batch.num_tokens, torch.autograd.grad(loss, parameters)))
    (shared, fewer, ours), (apart, more, theirs) = found
    assert fewer < more
    assert shared == pytest.approx(apart, rel=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()


@pytest.mark.parametrize("kind", HYBRIDS)
def test_auto_finds_the_projections_and_plan_counts_them(
    kind: str, make_base: MakeBase, make_miniature: MakeMiniature, tmp_path: Path
) -> None:
    adapter = attached(make_base(kind))
    leaves = {name.rpartition(".")[2] for name in adapter.layers}
    ends = {e for e in FOUND.get(kind, ()) if any(n.endswith(f".{e}") for n in adapter.layers)}
    assert ends == FOUND.get(kind, set())
    assert len(leaves) >= (1 if kind == "mamba2" else 5)
    assert not any("router" in name or name.endswith(".lm_head") for name in adapter.layers)
    chats(tmp_path / "train.jsonl", 5)
    spec = small_spec(tmp_path)
    model = HFModel(path=str(make_miniature(kind)))
    spec = replace(spec, model=model, lora=replace(AUTO), packing=Packing())
    spec.data.valid = None
    plan = estimate_run(spec)
    assert spec.packing.strategy == "none"
    assert plan.shape.trainable == adapter.num_trainable
    assert plan.memory.total > 0
    assert any("leave room in memory" in note for note in plan.notes)
    assert not any("best-fit" in str(advice) for advice in plan.advice)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", HYBRIDS)
def test_its_adapter_is_read_back_here_and_by_peft(
    kind: str, make_base: MakeBase, make_miniature: MakeMiniature, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make_base(kind)
    adapter = attached(base)
    stirred(adapter)
    ids = flat_batch([19]).input_ids
    with torch.no_grad():
        expected = base.own_logits(ids)
        adapter.save(tmp_path)
        adapter.detach()
        assert not torch.allclose(base.own_logits(ids), expected, atol=1e-2)
        again = load_adapter(base, FolderSource(tmp_path))
        assert torch.equal(base.own_logits(ids), expected)
        again.detach()
        stock = AutoModelForCausalLM.from_pretrained(make_miniature(kind), dtype=torch.float32)
        theirs = PeftModel.from_pretrained(stock, tmp_path).eval()(input_ids=ids, use_cache=False)
    assert torch.allclose(theirs.logits, expected, atol=1e-4)


def test_what_fused_kernels_read_past_an_adapter_is_refused(make_miniature: MakeMiniature) -> None:
    for kind, target in (("bamba", "out_proj"), ("jamba", "x_proj"), ("mamba2", "out_proj")):
        with pytest.raises(ConfigError, match=rf"{target} cannot be adapted.*in_proj"):
            check_targets(make_miniature(kind), Lora(targets=[target]))
    check_targets(make_miniature("lfm2"), Lora(targets=["out_proj"]))


def test_names_that_peft_takes_for_experts_are_left_out(make_base: MakeBase) -> None:
    """PEFT would adapt all experts, and not the modules that are named."""
    base = make_base("qwen3_next")
    layers = attached(base).layers
    assert "model.layers.0.mlp.shared_expert_gate" in layers
    assert not any(name.endswith(("up_proj", "down_proj", "experts")) for name in layers)
    base.reset()
    with pytest.raises(ConfigError, match=r"lora\.targets: gate_proj cannot be adapted"):
        attached(base, Lora(targets=["q_proj", "gate_proj"]))


def test_models_of_attention_alone_carry_no_state(
    make_base: MakeBase, make_miniature: MakeMiniature
) -> None:
    for kind in TRANSFORMERS:
        spec = HFModel(path=str(make_miniature(kind)))
        assert spec.stateful_layers() == []
        assert spec.joint_obstacle is None
        assert make_base(kind).stateful_layers == []
        assert spec.compile_obstacle is None
    for kind in HYBRIDS:
        assert HFModel(path=str(make_miniature(kind))).stateful_layers()


def test_a_document_that_is_not_computed_as_the_model_does_is_caught(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base: Any = make_base("lfm2")
    honest = base.own_logits
    monkeypatch.setattr(base, "own_logits", lambda ids: honest((ids + 1) % 400))
    with pytest.raises(LeakError, match="not computed as the model itself"):
        check_alone(base, None, autocast=nullcontext)


@pytest.mark.parametrize("kind", ["lfm2", "qwen3_5", "granite4"])
def test_bf16_passes_the_probe_too(kind: str, make_base: MakeBase) -> None:
    base = make_base(kind, dtype=torch.bfloat16)
    check_isolation(base, attached(base), autocast=BF16)


@pytest.fixture
def hybrid(make_miniature: MakeMiniature, tmp_path: Path) -> TrainSpec:
    chats(tmp_path / "train.jsonl", 9)
    chats(tmp_path / "valid.jsonl", 3)
    spec = small_spec(tmp_path)
    return replace(
        spec,
        model=HFModel(path=str(make_miniature("qwen3_5"))),
        lora=replace(AUTO, dropout=0.1),
        packing=Packing(max_length=80),
        batch_size=2,
        accumulate=2,
        run_dir=str(tmp_path / "run"),
    )


def test_one_conversation_a_row_is_chosen_by_itself(hybrid: TrainSpec) -> None:
    assert resolve_auto(hybrid) == [
        "packing=none (auto: its linear_attention layers carry state along the row)",
        "batch_size=1 accumulate=4: one row a pass, as many rows a step",
    ]
    assert (hybrid.packing.strategy, hybrid.batch_size, hybrid.accumulate) == ("none", 1, 4)
    assert resolve_auto(hybrid) == []


@pytest.mark.parametrize("strategy", ["best-fit", "first-fit"])
def test_shared_rows_are_refused_with_the_reason(hybrid: TrainSpec, strategy: str) -> None:
    hybrid.packing = Packing(strategy=strategy)
    with pytest.raises(ConfigError, match=rf"packing={strategy}: .* its linear_attention"):
        run(hybrid)
    assert not Path(hybrid.run_dir).exists()


def test_a_base_of_attention_packs_as_before(hybrid: TrainSpec, qwen2_folder: Path) -> None:
    hybrid.model = HFModel(path=str(qwen2_folder))
    assert resolve_auto(hybrid) == []
    assert (hybrid.packing.strategy, hybrid.batch_size) == ("best-fit", 2)


def test_batches_of_rows_and_accumulated_rows_are_one_update(hybrid: TrainSpec) -> None:
    """What `batch_size` asks for comes out, though each row has a pass of its own."""
    found = []
    for number, (batch_size, accumulate) in enumerate([(2, 2), (4, 1), (1, 4)]):
        folder = Path(hybrid.run_dir) / str(number)
        run(replace(hybrid, batch_size=batch_size, accumulate=accumulate, run_dir=str(folder)))
        found.append((folder / "adapter" / "adapter_model.safetensors").read_bytes())
    assert found[0] == found[1] == found[2]


def test_joint_training_is_refused_with_the_reason(hybrid: TrainSpec) -> None:
    resolve_auto(hybrid)
    assert "linear_attention layers carry state" in unfit([hybrid])[0]


def test_a_resumed_run_equals_one_that_was_not_killed(
    hybrid: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftlab.training.module import AdapterModule

    hybrid.checkpoint.every_steps = 1
    whole = replace(hybrid, run_dir=f"{hybrid.run_dir}-whole")
    run(whole)
    honest, steps = AdapterModule.check_weights, 0

    def dies(module: AdapterModule) -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise ModelError("the power fails")
        honest(module)

    monkeypatch.setattr(AdapterModule, "check_weights", dies)
    with pytest.raises(ModelError, match="the power fails"):
        run(replace(hybrid))
    monkeypatch.setattr(AdapterModule, "check_weights", honest)
    run(replace(hybrid, resume="auto"))
    weights = "adapter/adapter_model.safetensors"
    ours, theirs = (Path(r) / weights for r in (hybrid.run_dir, whole.run_dir))
    assert ours.read_bytes() == theirs.read_bytes()
    result = json.loads((Path(hybrid.run_dir) / "result.json").read_text())
    assert result["steps"] == 6
