"""Adapters on miniatures: PEFT's own format, named randomness, strength, and leaving no trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.base import CONFIG, WEIGHTS, Adapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach, load_adapter
from graftlab.errors import ConfigError, ModelError
from graftlab.models.base import Base
from graftlab.objectives.policy import Policy
from miniatures import build, flat_batch
from tolerance import assert_same

MakeBase = Callable[..., Base]
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
# Plain PEFT, the reference here, still reads an attribute that transformers renamed,
# and warns that a head tied to the embedding is trained alone, which is what is asked here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
]
VARIANTS = {
    "lora": Lora(rank=4),
    "dora": Lora(rank=4, dora=True),
    "rslora": Lora(rank=4, rslora=True, targets="attn"),
    "last-layer": Lora(rank=4, layers=1),
    "head": Lora(rank=4, targets=["q_proj", "lm_head"]),
    "saved": Lora(rank=4, modules_to_save=["lm_head", "norm"]),
}


def stir(adapter: Adapter, seed: int = 1, by: float = 0.05) -> None:
    """Stand in for training: move every weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.dtype), alpha=by)


@torch.no_grad()
def logits(base: Base) -> torch.Tensor:
    return base.logits(base.hidden(flat_batch([12, 9]))[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_fresh_adapter_is_the_base_and_a_trained_one_is_not(
    name: str, make_base: MakeBase
) -> None:
    base = make_base()
    alone = logits(base)
    adapter = attach(base, VARIANTS[name], seed=0, dtype=torch.float32)
    assert_same(logits(base), alone)
    stir(adapter)
    assert (logits(base) - alone).abs().max() > 1e-2
    with adapter.disabled():
        assert torch.equal(logits(base), alone)
    adapter.detach()
    assert torch.equal(logits(base), alone)
    assert not any(p.requires_grad for p in base.model.parameters())


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gemma3", "phi3"])
@pytest.mark.parametrize("name", ["lora", "dora", "saved"])
def test_the_folder_loads_in_plain_peft_with_the_same_logits(
    kind: str, name: str, make_base: MakeBase, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make_base(kind)
    adapter = attach(base, VARIANTS[name], seed=0, dtype=torch.float32)
    stir(adapter)
    adapter.save(tmp_path)
    written = (tmp_path / WEIGHTS).read_bytes()
    for _ in range(6):  # the order of metadata is drawn anew at every write
        adapter.save(tmp_path)
        assert (tmp_path / WEIGHTS).read_bytes() == written
    batch = flat_batch([31])
    with torch.no_grad():
        ours = base.logits(base.hidden(batch)[0])

    config = json.loads((tmp_path / CONFIG).read_text())
    stock = AutoModelForCausalLM.from_pretrained(
        config["base_model_name_or_path"], attn_implementation="eager"
    )
    loaded = PeftModel.from_pretrained(stock, tmp_path).eval()
    with torch.no_grad():
        theirs = loaded(batch.input_ids).logits[0]
    assert_same(ours, theirs)
    again = PeftModel.from_pretrained(build(kind), tmp_path)
    again.save_pretrained(tmp_path / "peft")
    tensors = find_artifact(str(tmp_path / "peft")).require_adapter().tensors()
    assert set(tensors) == set(adapter.state_dict())
    assert all(torch.equal(tensors[n], t) for n, t in adapter.state_dict().items())


@pytest.mark.parametrize("name", VARIANTS)
def test_saved_and_loaded_is_the_same_adapter(
    name: str, make_base: MakeBase, tmp_path: Path
) -> None:
    base = make_base()
    adapter = attach(base, VARIANTS[name], seed=0, dtype=torch.float32)
    stir(adapter)
    tuned = logits(base)
    adapter.save(tmp_path / "run" / "adapter")
    first = (tmp_path / "run" / "adapter" / CONFIG).read_bytes()
    adapter.detach()
    again = load_adapter(base, find_artifact(str(tmp_path / "run")).require_adapter())
    assert torch.equal(logits(base), tuned)
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / CONFIG).read_bytes() == first


def test_initial_values_depend_on_seed_and_name_only(make_base: MakeBase) -> None:
    base = make_base()

    def initial(lora: Lora, seed: int) -> dict[str, torch.Tensor]:
        adapter = attach(base, lora, seed=seed, dtype=torch.float32)
        state = adapter.state_dict()
        adapter.detach()
        return state

    for init in ("default", "gaussian", "orthogonal"):
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        wide = initial(Lora(rank=4, init=init), 0)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(6)
        narrow = initial(Lora(rank=4, init=init, targets=["v_proj"], layers=1), 0)
        pinned = initial(Lora(rank=4, init=init, seed=0), 99)
        other = initial(Lora(rank=4, init=init), 1)
        assert len(narrow) == 2 < len(wide)
        assert all(torch.equal(wide[name], tensor) for name, tensor in narrow.items())
        assert all(torch.equal(wide[name], tensor) for name, tensor in pinned.items())
        drawn = [name for name, tensor in wide.items() if tensor.any()]
        assert drawn
        assert not any(torch.equal(wide[name], other[name]) for name in drawn)
        assert len({tuple(wide[n].flatten()[:3].tolist()) for n in drawn}) == len(drawn)


def test_initial_values_are_spread_as_pefts_own(make_base: MakeBase) -> None:
    from peft import LoraConfig, get_peft_model

    for init in ("default", "gaussian", "orthogonal"):
        base = make_base()
        ours = attach(base, Lora(rank=8, init=init), seed=0, dtype=torch.float32)
        peft_init = True if init == "default" else init
        config = LoraConfig(
            r=8,
            init_lora_weights=peft_init,  # type: ignore[arg-type]
            target_modules=ours.config.target_modules,
        )
        theirs = get_peft_model(build("qwen2"), config)
        for part in ("lora_A", "lora_B"):
            mine = torch.cat([t.flatten() for n, t in ours.state_dict().items() if part in n])
            peft = torch.cat([p.flatten() for n, p in theirs.named_parameters() if part in n])
            assert mine.shape == peft.shape
            torch.testing.assert_close(mine.std(), peft.std(), rtol=0.08, atol=0)


def test_weights_are_fp32_on_a_bf16_base_and_bf16_when_asked(make_base: MakeBase) -> None:
    base = make_base(dtype=torch.bfloat16)
    everything = Lora(rank=4, dora=True, modules_to_save=["lm_head"])
    for dtype in (torch.float32, torch.bfloat16):
        adapter = attach(base, everything, seed=0, dtype=dtype)
        assert {p.dtype for _, p in adapter.named_parameters()} == {dtype}
        values = adapter.state_dict()[f"{Q_PROJ}.lora_A.weight"]
        rounded = torch.equal(values, values.to(torch.bfloat16).to(dtype))
        assert rounded == (dtype == torch.bfloat16)
        adapter.detach()


@pytest.mark.parametrize("name", ["lora", "dora", "saved"])
def test_strength_goes_from_the_base_to_the_adapter(name: str, make_base: MakeBase) -> None:
    base = make_base()
    alone = logits(base)
    adapter = attach(base, VARIANTS[name], seed=0, dtype=torch.float32)
    stir(adapter)
    tuned, state = logits(base), adapter.state_dict()
    with adapter.scaled(0.0):
        assert_same(logits(base), alone)
    with adapter.scaled(0.7):
        softer = logits(base)
    assert 0 < (softer - alone).norm() < (tuned - alone).norm()
    assert (softer - tuned).abs().max() > 1e-3
    assert torch.equal(logits(base), tuned)
    assert all(torch.equal(state[n], t) for n, t in adapter.state_dict().items())


def test_a_lora_head_is_trained(make_base: MakeBase) -> None:
    base = make_base()
    adapter = attach(base, Lora(rank=4, targets=["lm_head"]), seed=0, dtype=torch.float32)
    stir(adapter)
    Policy(base, adapter).label_nll(flat_batch([20])).backward()
    gradients = [p.grad for _, p in adapter.named_parameters()]
    assert len(gradients) == 2
    assert all(g is not None and g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("name", VARIANTS)
def test_continuing_starts_exactly_where_the_other_ended(
    name: str, make_base: MakeBase, tmp_path: Path
) -> None:
    base = make_base()
    lora = VARIANTS[name]
    adapter = attach(base, lora, seed=0, dtype=torch.float32)
    stir(adapter)
    trained = adapter.state_dict()
    adapter.save(tmp_path / "adapter")
    checkpoint = {"adapter": trained, "adapter_config": adapter.config_dict(), "run": {"lr": 1.0}}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    adapter.detach()
    for place in (tmp_path, tmp_path / "adapter", tmp_path / "last.ckpt"):
        again = Lora(
            rank=4,
            dora=lora.dora,
            rslora=lora.rslora,
            targets=lora.targets,
            layers=lora.layers,
            modules_to_save=lora.modules_to_save,
            from_run=str(place),
        )
        continued = attach(base, again, seed=7, dtype=torch.float32)
        assert all(torch.equal(trained[n], t) for n, t in continued.state_dict().items())
        continued.detach()


def test_continuing_another_make_is_refused_with_the_keys(
    make_base: MakeBase, tmp_path: Path
) -> None:
    base = make_base()
    attach(base, Lora(rank=4, targets="attn"), seed=0, dtype=torch.float32).save(tmp_path)
    base.reset()
    asked = Lora(rank=8, targets="attn-mlp", from_run=str(tmp_path))
    with pytest.raises(ConfigError, match=r"lora\.rank: asked 8, it has 4") as caught:
        attach(base, asked, seed=0, dtype=torch.float32)
    assert "lora.targets" in str(caught.value)
    assert "lora.dora" not in str(caught.value)
    assert base.adapter is None


def test_an_adapter_of_another_base_is_refused_and_leaves_no_trace(
    make_base: MakeBase, tmp_path: Path
) -> None:
    attach(make_base("llama"), Lora(rank=4), seed=0, dtype=torch.float32).save(tmp_path)
    phi = make_base("phi3")
    before = logits(phi)
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(phi, find_artifact(str(tmp_path)).require_adapter())
    assert phi.adapter is None
    assert torch.equal(logits(phi), before)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_inits_that_rewrite_the_base_are_refused(init: str) -> None:
    with pytest.raises(ConfigError, match="rewrites the base"):
        Lora(init=init)


def test_what_cannot_be_is_said_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"lora\.init=gausian.*gaussian"):
        Lora(init="gausian")
    with pytest.raises(ConfigError, match=r"even lora\.rank"):
        Lora(init="orthogonal", rank=5)
    with pytest.raises(ConfigError, match="twice"):
        Lora(alpha=16, scale=2)
    assert Lora(rank=8, scale=4).effective_alpha == 32
    assert Lora(rank=8).effective_alpha == 16
    assert Lora(rank=8, alpha=3).effective_alpha == 3


def test_places_without_an_adapter_say_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"last\.ckpt"):
        find_artifact(str(tmp_path / "run"))
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        find_artifact(f"{tmp_path}/run/checkpoints/last.ckpt").require_adapter().tensors()
    with pytest.raises(ModelError, match="Did you mean `run`"):
        find_artifact(str(tmp_path / "rum"))
