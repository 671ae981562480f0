"""Ranks and alphas of single modules, and rows of the embedding: as PEFT has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.attach import attach, load_adapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.targets import check_targets
from graftlab.errors import ConfigError
from graftlab.models.base import Base
from graftlab.models.probe import check_isolation
from graftlab.objectives.policy import Policy
from graftlab.objectives.sft import SFT
from graftlab.training.joint.stack import require_stackable
from miniatures import flat_batch

MakeBase = Callable[..., Base]
MakeMiniature = Callable[[str], Path]
PATTERNS = Lora(
    rank=4,
    alpha=8,
    rank_pattern={"q_proj": 2, r"layers\.1\..*v_proj": 6},
    alpha_pattern={"v_proj": 32.0},
)
TOKENS = Lora(rank=4, trainable_tokens=["<|im_start|>", "!"])
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def attached(base: Base, lora: Lora) -> Any:
    return attach(base, lora, seed=0, dtype=torch.float32)


@torch.no_grad()
def stirred(adapter: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for _, parameter in adapter.named_parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def logits(base: Base) -> torch.Tensor:
    return base.logits(base.hidden(flat_batch([12, 9]))[0])


@torch.no_grad()
def by_peft(folder: Path, model: Path) -> torch.Tensor:
    """The logits of plain PEFT, each document alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    stock = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(stock, folder).eval()
    ids = flat_batch([12, 9]).input_ids
    return torch.cat([tuned(part).logits[0] for part in ids.split([12, 9], dim=1)])


def test_ranks_and_scales_are_those_of_pefts_own_layers(
    make_base: MakeBase, make_miniature: MakeMiniature
) -> None:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM

    base = make_base()
    adapter = attached(base, PATTERNS)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=sorted(adapter.config.target_modules),
        rank_pattern=PATTERNS.rank_pattern,
        alpha_pattern=PATTERNS.alpha_pattern,
        task_type="CAUSAL_LM",
    )
    stock = AutoModelForCausalLM.from_pretrained(make_miniature("qwen2"), dtype=torch.float32)
    theirs = {
        name.removeprefix("base_model.model."): (module.r["default"], module.scaling["default"])
        for name, module in get_peft_model(stock, config).named_modules()
        if isinstance(module, LoraLayer)
    }
    ours = {name: (m.r["default"], m.scaling["default"]) for name, m in adapter.layers.items()}
    assert ours == theirs
    assert len(set(ours.values())) > 3
    require_stackable(adapter)


@pytest.mark.parametrize("lora", [PATTERNS, TOKENS], ids=["patterns", "tokens"])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma2"])  # two of them with a tied head
def test_saved_and_read_back_here_and_by_peft(
    lora: Lora, kind: str, make_base: MakeBase, make_miniature: MakeMiniature, tmp_path: Path
) -> None:
    base = make_base(kind)
    alone = logits(base)
    adapter = attached(base, lora)
    assert torch.equal(logits(base), alone)  # a fresh adapter is the base
    stirred(adapter)
    trained = logits(base)
    assert (trained - alone).abs().max() > 1e-2
    with adapter.disabled():
        assert torch.equal(logits(base), alone)
    with adapter.scaled(0.5):
        half = logits(base)
    assert not torch.equal(half, trained)
    with adapter.scaled(0.0):
        assert torch.equal(logits(base), alone)
    adapter.save(tmp_path)
    adapter.detach()
    assert torch.equal(logits(base), alone)
    with adapter.mounted():
        assert torch.equal(logits(base), trained)
    again = load_adapter(base, find_artifact(str(tmp_path)).require_adapter())
    assert torch.equal(logits(base), trained)
    again.detach()
    theirs = by_peft(tmp_path, make_miniature(kind))
    torch.testing.assert_close(trained, theirs, atol=1e-4, rtol=1e-4)


def test_training_goes_on_from_the_same_patterns_and_tokens(
    make_base: MakeBase, tmp_path: Path
) -> None:
    from dataclasses import replace

    for number, lora in enumerate((PATTERNS, TOKENS)):
        folder, base = tmp_path / str(number), make_base()
        adapter = attached(base, lora)
        stirred(adapter)
        adapter.save(folder)
        adapter.detach()
        again = attached(base, replace(lora, from_run=str(folder)))
        ours, theirs = adapter.state_dict(), again.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        base.reset()
        other = Lora(rank=4, alpha=8, from_run=str(folder))
        said = r"lora\.(rank_pattern: asked None, it has|trainable_tokens: asked None, it has)"
        with pytest.raises(ConfigError, match=said):
            attached(base, other)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_the_rows_of_those_tokens_alone_are_trained(kind: str, make_base: MakeBase) -> None:
    base: Any = make_base(kind)
    embedding = base.model.get_input_embeddings().weight.detach().clone()
    adapter = attached(base, TOKENS)
    named = dict(adapter.named_parameters())
    (name,) = [name for name in named if "token_adapter" in name]
    assert name == "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    ids = adapter.config.trainable_token_indices
    assert named[name].shape == (2, 64)
    assert torch.equal(named[name], embedding[ids])
    base.set_checkpointing(False)
    optimizer = torch.optim.SGD(list(named.values()), lr=0.5)
    batch = flat_batch([30])
    batch.input_ids[0, :4] = ids[0]
    SFT().terms(Policy(base, adapter), batch)["loss"].backward()
    optimizer.step()
    moved = (named[name] != embedding[ids]).any(1)
    # A tied head gives every token a gradient; else only those that were read have one.
    assert moved.tolist() == ([True, True] if kind == "qwen2" else [ids[0] == i for i in ids])
    adapter.detach()
    assert torch.equal(base.model.get_input_embeddings().weight, embedding)


def test_the_probe_holds_with_trained_tokens(make_base: MakeBase) -> None:
    from contextlib import nullcontext

    base = make_base()
    assert "bit-identical" in check_isolation(base, attached(base, TOKENS), autocast=nullcontext)


def test_what_names_nothing_is_said_with_its_key(make_miniature: MakeMiniature) -> None:
    folder = make_miniature("qwen2")
    wrong = Lora(rank_pattern={"q_porj": 2, "k_proj": 2}, alpha_pattern={"(": 3.0})
    with pytest.raises(ConfigError) as told:
        check_targets(folder, wrong)
    assert "lora.rank_pattern: q_porj matches no adapted module. Did you mean `q_proj`?" in str(
        told.value
    )
    assert "lora.alpha_pattern: ( is no regular expression" in str(told.value)
    for tokens, said in (
        (["<|im_strat|>"], r"<\|im_strat\|> is no single token.*Did you mean `<\|im_start\|>`"),
        (["two words", "no token"], "two words, no token are no single tokens"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_targets(folder, Lora(trainable_tokens=tokens))
    for fields, key in (
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"targets": ["q_proj", "lm_head"]}, "targets"),
    ):
        with pytest.raises(ConfigError, match=rf"lora\.{key}=.* both train the embedding"):
            check_targets(folder, Lora(trainable_tokens=["!"], **fields))
    untied = make_miniature("qwen3")
    check_targets(untied, Lora(trainable_tokens=["!"], modules_to_save=["lm_head"]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rank_pattern": {"q_proj": 0}}, r"lora\.rank_pattern\.q_proj"),
        ({"alpha_pattern": {"q_proj": -1.0}}, r"lora\.alpha_pattern\.q_proj"),
        (
            {"init": "orthogonal", "rank_pattern": {"q_proj": 3}},
            r"even lora\.rank_pattern\.q_proj, not 3",
        ),
        ({"full": True, "trainable_tokens": ["!"]}, r"lora\.trainable_tokens"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Lora(**fields)
