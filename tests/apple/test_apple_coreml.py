"""`target=mlpackage` of an adapter in its base: with its cache as a state it says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import miniatures
from afm_adapters import hf_run, logits
from graftlab.apple.exports.mlpackage import MLPackage, _tokenizer
from graftlab.apple.exports.stateful import FAMILIES, Norm, Stateful, read, require_family
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.source import load
from graftlab.models.quantization.int8 import Int8
from tolerance import assert_same

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IDS = torch.randint(5, 200, (1, 45), generator=torch.Generator().manual_seed(3))
SIZES = {"chunk": 8, "contexts": [32, 64]}
SMOLLM3 = ("SmolLM3Config", "SmolLM3ForCausalLM", {"no_rope_layers": [1, 0]})


def target(**keys: object) -> MLPackage:
    return MLPackage(**{**SIZES, **keys})


def model_of(run: Path, **keys: object) -> PreTrainedModel:
    return target(**keys)._loaded(load(str(run)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a miniature with windows in half of its layers."""
    return hf_run(tmp_path_factory.mktemp("gemma3"), "gemma3")


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_and_single_tokens_are_read_as_one_pass(family, monkeypatch):
    monkeypatch.setitem(miniatures.KINDS, "smollm3", SMOLLM3)
    kind = family.removesuffix("_text")
    model = miniatures.build(kind)
    require_family(model, subject="it")
    with torch.no_grad():
        wanted = model(IDS, use_cache=False).logits[0]
    graph = Stateful(model, length=64).eval()
    assert graph.windows == ([miniatures.WINDOW] if kind in ("mistral", "gemma3") else [])
    found = read(graph, IDS[0].tolist(), **SIZES)
    assert_same(found, wanted)
    assert_same(read(graph, IDS[0].tolist(), **SIZES), found)  # nothing is left of the first time


@pytest.mark.parametrize(
    "made",
    [{"dora": True, "targets": ["q_proj", "lm_head"]}, {"quantization": Int8()}],
    ids=["untied", "codes"],
)
def test_the_adapter_is_in_the_weights(made, tmp_path):
    """Also where it unties head and embedding, and where the base was stored as codes."""
    run = hf_run(tmp_path, **made)
    found = model_of(run)(IDS).logits
    assert_same(found, logits(run, IDS))
    stateless = target(cache=False, length=45)._draft(load(str(run)))
    assert_same(stateless(IDS.int()), found)
    soft = model_of(run, strength=0.5)(IDS).logits
    assert (soft - found).abs().max() > 0.01


def test_squares_above_half_precision_do_not_break_a_norm():
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm = LlamaRMSNorm(64, eps=1e-5)
    ours = Norm(norm.weight.detach(), 1e-5)
    rows = torch.randn(7, 64) * torch.tensor([1e-3, 0.1, 1, 10, 300, 3e3, 6e3])[:, None]
    rows[5, 3] = 6e4
    wanted = norm(rows)
    assert_same(ours(rows), wanted)
    halved = ours.half()(rows.half())
    assert (rows.half() ** 2).isinf().any(), "which a norm as written would add up"
    torch.testing.assert_close(halved.float(), wanted, rtol=2e-2, atol=2e-3)


def test_a_model_that_half_precision_cannot_compute_is_refused(run):
    chosen, adapter = target(), load(str(run))
    tokenizer = adapter.on_base.load_tokenizer()
    graph, (fact,) = chosen._as_in_one_pass(chosen._loaded(adapter), tokenizer)
    assert fact.startswith("24 tokens in pieces and one by one")
    assert graph.keys.dtype == torch.float16
    model = chosen._loaded(adapter)
    with torch.no_grad():
        model.model.layers[0].post_feedforward_layernorm.weight.mul_(1e6)
    with pytest.raises(ModelError, match=r"KL nan nats. target=gguf and target=mlx"):
        chosen._as_in_one_pass(model, tokenizer)


@pytest.mark.parametrize(("chunk", "contexts"), [(16, [16]), (100, [128])])
def test_any_length_is_checked(chunk, contexts, run):
    """A context that is one piece, and pieces longer than what is asked."""
    chosen, adapter = MLPackage(chunk=chunk, contexts=contexts), load(str(run))
    _, (fact,) = chosen._as_in_one_pass(chosen._loaded(adapter), _tokenizer(adapter))
    assert fact.startswith(f"{contexts[0]} tokens in pieces")


def test_a_value_above_half_precision_is_named(run):
    adapter = load(str(run))
    for name, tensor in adapter.state.items():
        if "lora_B" in name:
            tensor.mul_(1e7)
    with pytest.raises(ModelError, match=r"q_proj.weight has values above 65,504"):
        target()._loaded(adapter)


def test_a_graph_that_answers_otherwise_is_refused(run):
    """The comparison itself: a window that is forgotten."""
    adapter = load(str(run))
    chosen = target(chunk=20, contexts=[64])
    model = chosen._loaded(adapter)
    assert chosen._as_in_one_pass(model, adapter.on_base.load_tokenizer())
    model = chosen._loaded(adapter)
    forward, forgotten = model.forward, []

    def as_it_was(*given, use_cache, **options):
        if use_cache:
            for layer in model.model.layers:
                forgotten.append(layer.self_attn.sliding_window)
                layer.self_attn.sliding_window = None
        return forward(*given, use_cache=use_cache, **options)

    model.forward = as_it_was
    with pytest.raises(ModelError, match="with its cache the model answers otherwise than without"):
        chosen._as_in_one_pass(model, adapter.on_base.load_tokenizer())
    assert miniatures.WINDOW in forgotten


def test_families_rotations_and_lengths_are_checked(run):
    with pytest.raises(ModelError, match=r"is a cohere, .*target=gguf, target=mlx and target=merg"):
        require_family(miniatures.build("cohere"), subject="it")
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(ModelError, match=r"angles that depend on the length \(dynamic\)"):
        require_family(miniatures.build("llama", rope_parameters=rope), subject="it")
    with pytest.raises(ModelError, match=r"reads 2048 positions: target.contexts=\[2048\]"):
        MLPackage().check(load(str(run)))


def test_keys_are_checked():
    with pytest.raises(ConfigError, match=r"target.contexts=\[32\] needs .* target.chunk=64"):
        MLPackage(contexts=[32])
    with pytest.raises(ConfigError, match=r"target.contexts=40000 is out of range"):
        MLPackage(contexts=[2048, 40000])
    assert MLPackage(contexts=[4096, 2048, 4096]).contexts == [2048, 4096]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # coremltools has not been tried with this torch
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
def test_a_package_answers_as_the_model(kind, tmp_path, monkeypatch):
    """Its program is computed here operation by operation; its own README asks it for a reply."""
    coremltools = pytest.importorskip("coremltools")
    from graftlab.verbs.export import Exported, ExportSpec
    from graftlab.verbs.export import run as export
    from mil_program import Program

    trained = hf_run(tmp_path / "made", kind)
    spec = ExportSpec(
        adapter=str(trained), target=target(contexts=[64, 128]), name="chat", out=str(tmp_path)
    )
    spec.check()
    done = export(spec)
    assert isinstance(done, Exported)
    assert done.report.verdict == "not checked here"
    assert any(fact.endswith("weights in fp16, all read back equal") for fact in done.facts)
    held = done.path / "Data" / "graftlab"
    assert (held / "tokenizer" / "tokenizer.json").is_file()
    call = json.loads((held / "call.json").read_text())
    assert call["states"] == {"keys": [2, 2, 128, 16], "values": [2, 2, 128, 16]}

    program = Program(done.path)
    state, found = program.make_state(), []
    for start, count in [(0, 8), (8, 8), *((place, 1) for place in range(16, 45))]:
        context = 64 if start < 30 else 128
        rows = np.arange(start, start + count)[:, None]
        mask = np.where(np.arange(context) <= rows, 0, call["masked"]).astype(np.float16)
        ids = np.zeros((1, 8), np.int32)
        ids[0, :count] = IDS[0, start : start + count]
        given = {"ids": ids, "start": np.array([start], np.int32), "mask": mask[None, None]}
        found.append(torch.from_numpy(program.predict(given, state)["logits"][0]))
    model = model_of(trained)
    graph = Stateful(model, length=64).eval().half().float()  # rounded as the package is
    assert_same(torch.cat(found), read(graph, IDS[0].tolist(), **SIZES))
    torch.testing.assert_close(torch.cat(found), logits(trained, IDS)[0], rtol=0, atol=0.03)

    monkeypatch.setattr(coremltools.models, "MLModel", lambda path: program)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (held / "README.md").read_text(), re.DOTALL)
    said: list[str] = []
    names = {"print": said.append}
    exec(code[1].replace('call["contexts"][-1]', "prompt + 12"), names)
    prompt = torch.tensor([names["ids"][: names["prompt"]]])
    reply = model_of(trained).generate(
        prompt, max_new_tokens=12, do_sample=False, eos_token_id=call["stop"], pad_token_id=0
    )
    assert len(prompt[0]) > 8, "it is read in pieces"
    wanted = reply[0].tolist()
    wanted = wanted[:-1] if wanted[-1] in call["stop"] else wanted
    assert names["ids"][: names["start"]] == wanted
    assert len(said) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_package_of_another_adapter_is_not_kept(tmp_path):
    pytest.importorskip("coremltools")
    adapter = load(str(hf_run(tmp_path, "llama")))
    folder = tmp_path / "chat.mlpackage"
    folder.mkdir()
    target().write(adapter, folder)
    assert "a state of keys and values (2, 2, 64, 16)" in target().verify(adapter, folder)[1]
    with pytest.raises(ModelError, match=r"proj_weight was not read back as it was merged"):
        target(strength=0.5).verify(adapter, folder)
    with pytest.raises(ModelError, match="was converted to another program"):
        target(contexts=[64]).verify(adapter, folder)
