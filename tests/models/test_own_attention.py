"""A model in its own attention computes each document by itself, and what is none is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from chats import chats
from families import save_family
from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, ModelError
from graftlab.models.hf import HFModel
from graftlab.models.own_attention import own_attention
from graftlab.models.probe import check_alone, check_isolation
from graftlab.objectives.policy import Policy
from graftlab.objectives.sft import SFT
from graftlab.packing.plan import Packing
from graftlab.training.auto import resolve_auto
from graftlab.training.joint.groups import unfit
from graftlab.training.start import run
from miniatures import flat_batch
from training_spec import small_spec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def make_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def folder(model_type: str) -> Path:
        if model_type not in folders:
            place = tmp_path_factory.mktemp("families") / model_type
            folders[model_type] = save_family(model_type, place)
        return folders[model_type]

    return folder


def learned(spec: HFModel) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of three documents in one batch."""
    base = spec.load(dtype=torch.float32, device=CPU)
    adapter = attach(base, Lora(rank=4, init="gaussian"), seed=0, dtype=torch.float32)
    base.set_checkpointing(True)
    loss = SFT().terms(Policy(base, adapter), flat_batch([23, 5, 14]))["loss"]
    parameters = [parameter for _, parameter in adapter.named_parameters()]
    return loss.item(), list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "mistral"])
def test_own_attention_learns_what_packed_attention_does(
    kind: str, make_miniature: Callable[[str], Path]
) -> None:
    spec = HFModel(path=str(make_miniature(kind)))
    loss, gradients = learned(spec)
    own_loss, own_gradients = learned(replace(spec, attention="own"))
    assert own_loss == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(own_gradients, gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_what_is_its_own_is_told_from_config_and_names() -> None:
    names = ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.o_proj.bias"]
    plain = {"layer_types": ["full_attention", "sliding_attention"]}
    assert own_attention(plain, names) is None
    assert own_attention({}, names) is None
    assert "sinks" in (own_attention(plain, [*names, "model.layers.0.self_attn.sinks"]) or "")
    assert "chunked_attention" in (own_attention({"layer_types": ["chunked_attention"]}, []) or "")


def test_a_row_holds_one_conversation_by_itself(
    make_family: Callable[[str], Path], tmp_path: Path
) -> None:
    chats(tmp_path / "train.jsonl", 5)
    spec = replace(
        small_spec(tmp_path),
        model=HFModel(path=str(make_family("gpt_oss"))),
        packing=Packing(max_length=80),
        batch_size=4,
    )
    spec.data.valid = None
    told = resolve_auto(spec)
    assert told[0] == "packing=none (auto: its attention has sinks)"
    assert (spec.packing.strategy, spec.batch_size, spec.accumulate) == ("none", 1, 4)
    assert "its attention has sinks" in unfit([spec])[0]
    assert "its attention has sinks" in (spec.model.compile_obstacle or "")
    with pytest.raises(ConfigError, match=r"packing=best-fit: .* as its attention has sinks"):
        resolve_auto(replace(spec, packing=Packing(strategy="best-fit")))
    forced = replace(spec.model, attention="segments")  # type: ignore[type-var]
    base = forced.load(dtype=torch.float32, device=CPU)
    with pytest.raises(ModelError, match=r"attention sinks.*model\.attention=own"):
        check_isolation(base, None, autocast=nullcontext)


@pytest.mark.parametrize("model_type", ["bloom", "falcon"])
def test_attention_that_cannot_be_replaced_is_refused_with_the_remedy(
    model_type: str, make_family: Callable[[str], Path]
) -> None:
    spec = HFModel(path=str(make_family(model_type)))
    with pytest.raises(ModelError, match=r"no attention but its own.*model\.attention=own"):
        spec.load(dtype=torch.float32, device=CPU)


def test_an_encoder_is_refused_though_nothing_is_packed(
    make_family: Callable[[str], Path], tmp_path: Path
) -> None:
    """Packed attention is causal: BERT would be trained in it, and is another model without."""
    chats(tmp_path / "train.jsonl", 5)
    spec = replace(
        small_spec(tmp_path),
        model=HFModel(path=str(make_family("bert"))),
        lora=Lora(rank=4, targets="auto"),
        packing=Packing(strategy="none", max_length=80),
        batch_size=1,
        run_dir=str(tmp_path / "run"),
    )
    spec.data.valid = None
    with pytest.raises(ModelError, match="is no decoder"):
        run(spec)


def test_a_base_that_draws_at_random_is_refused(
    make_miniature: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base: Any = HFModel(path=str(make_miniature("qwen2"))).load(dtype=torch.float32, device=CPU)
    honest = type(base.body).forward

    def noisy(self: Any, **kwargs: Any) -> Any:
        output = honest(self, **kwargs)
        hidden = output.last_hidden_state
        output.last_hidden_state = functional.dropout(hidden, 0.1, training=self.training)
        return output

    monkeypatch.setattr(type(base.body), "forward", noisy)
    check_alone(base, None, autocast=nullcontext)  # in eval mode, as replies are made
    base.set_checkpointing(False)
    state = torch.random.get_rng_state()
    with pytest.raises(ModelError, match="draws at random while it trains"):
        check_alone(base, None, autocast=nullcontext)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rates_that_layers_hold_as_numbers_are_silenced(
    make_family: Callable[[str], Path],
) -> None:
    """Seed-OSS drops a tenth behind each attention, by a number among the layer's attributes."""
    base = HFModel(path=str(make_family("seed_oss"))).load(dtype=torch.float32, device=CPU)
    base.set_checkpointing(False)
    batch = flat_batch([9, 12])
    assert torch.equal(base.hidden(batch), base.hidden(batch))


def test_recomputation_is_refused_where_a_model_cannot(make_family: Callable[[str], Path]) -> None:
    spec = HFModel(path=str(make_family("jetmoe")))
    base = spec.load(dtype=torch.float32, device=CPU)
    base.set_checkpointing(False)
    with pytest.raises(ConfigError, match=r"model\.gradient_checkpointing=true.*Leave it out"):
        base.set_checkpointing(True)
