"""`.fmadapter`: the size of a real one, values that come back, and rotary halves that agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from afm_adapters import MINI, REAL, random_state, tamm_model
from graftlab.apple.exports import blob
from graftlab.apple.exports import package as fmadapter
from graftlab.apple.exports.package import Metadata, join_halves, split_halves
from graftlab.apple.exports.verify import verify
from graftlab.errors import ConfigError, ModelError
from tolerance import assert_same

META = Metadata("ficino_music", rank=4)


def write(folder: Path, state=None, *, layout=MINI, metadata=META, alpha=2.0) -> Path:
    folder.mkdir()
    state = random_state(layout) if state is None else state
    fmadapter.write(folder, state, layout=layout, metadata=metadata, alpha=alpha)
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write(tmp_path / "ficino_music.fmadapter")


def test_at_the_real_dimensions_it_has_133_312_320_bytes(tmp_path):
    """The size of a real toolkit export, from dimensions alone."""
    state = {slot.name: torch.zeros(slot.shape) for slot in REAL.slots()}
    metadata = Metadata("zeros")
    folder = write(tmp_path / "zeros.fmadapter", state, layout=REAL, metadata=metadata, alpha=16)
    assert (folder / "adapter_weights.bin").stat().st_size == 133_312_320
    assert len(blob.read(folder / "adapter_weights.bin")) == 700
    verdict = verify(folder)
    assert verdict.broken == []
    assert verdict.layout == REAL


def test_metadata_has_these_keys_in_this_order(package):
    text = (package / "metadata.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert list(content) == sorted(content)
    assert content == {
        "adapterIdentifier": "fmadapter-ficino_music-9799725",
        "author": "3P developer",
        "baseModelSignature": "9799725ff8e851184037110b422d891ad3b92ec1",
        "creatorDefined": {},
        "description": "",
        "license": "",
        "loraRank": 4,
        "speculativeDecodingDraftTokenCount": 5,
    }


def test_values_come_back_in_tamms_names_and_order(package):
    state = random_state()
    back = list(fmadapter.read_weights(package / "adapter_weights.bin", MINI))
    assert [slot.name for slot, _ in back] == [slot.name for slot in MINI.slots()]
    for slot, tensor in back:
        assert torch.equal(tensor, state[slot.name].half()), slot.name


def test_the_order_of_the_file_given_does_not_matter(package, tmp_path):
    shuffled = dict(sorted(random_state().items(), reverse=True))
    other = write(tmp_path / "other.fmadapter", shuffled)
    ours = (package / "adapter_weights.bin").read_bytes()
    assert (other / "adapter_weights.bin").read_bytes() == ours


def test_each_tensor_is_transposed_and_only_q_and_k_are_permuted(package):
    state, records = random_state(), blob.read(package / "adapter_weights.bin")
    permuted = 0
    for record, slot in zip(records, MINI.slots(), strict=True):
        data = torch.from_numpy(blob.load(package / "adapter_weights.bin", record).copy())
        plain = state[slot.name].half().T.contiguous().flatten()
        assert torch.equal(data, plain) == (slot.heads == 0), slot.name
        permuted += slot.heads > 0
    assert permuted == 2 * 2 + 2, "q and k of two regular layers, q of two that reuse"


def test_half_the_neighbours_are_the_first_half():
    rows = torch.arange(16)[:, None]
    split = split_halves(rows, 2).flatten().tolist()
    assert split == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    assert torch.equal(join_halves(split_halves(rows, 2), 2), rows)


@pytest.mark.parametrize(("alpha", "factor"), [(2.0, 1.0), (8.0, 4.0), (1.0, 0.5)])
def test_another_scale_is_folded_into_b(alpha, factor, tmp_path):
    state = random_state()
    folder = write(tmp_path / "scaled.fmadapter", state, alpha=alpha)
    read = list(fmadapter.read_weights(folder / "adapter_weights.bin", MINI))
    assert {slot.name for slot, _ in read} == set(state)
    for slot, tensor in read:
        wanted = state[slot.name] * (factor if slot.is_b else 1)
        assert torch.equal(tensor, wanted.half()), slot.name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_in_other_precisions_are_taken(dtype, tmp_path):
    state = random_state(dtype=dtype)
    folder = write(tmp_path / "low.fmadapter", state)
    read = {s.name: t for s, t in fmadapter.read_weights(folder / "adapter_weights.bin", MINI)}
    assert read.keys() == state.keys()
    for name, tensor in read.items():
        assert torch.equal(tensor, state[name].half())


@pytest.mark.parametrize(("value", "message"), [(7e4, "up to 7e\\+04"), (torch.nan, "no numbers")])
def test_what_half_precision_cannot_hold_is_refused_by_name(value, message, tmp_path):
    state = random_state()
    name = list(state)[17]
    state[name][1, 2] = value
    with pytest.raises(ModelError, match=f"{name}.*{message}"):
        write(tmp_path / "big.fmadapter", state)


def test_a_scale_that_overflows_is_refused(tmp_path):
    state = random_state()
    name = (
        "layers.segment_0.layer_0.feed_forward.output_transform.adapters.base_adapter.b_transpose"
    )
    state[name][0, 0] = 40_000
    write(tmp_path / "fits.fmadapter", state)
    with pytest.raises(ModelError, match=name):
        write(tmp_path / "overflows.fmadapter", state, alpha=4.0)


@pytest.mark.parametrize("name", ["ficino-music", "a b", "", "x.y", "naïve"])
def test_a_name_that_cannot_load_is_refused(name):
    with pytest.raises(ConfigError, match="invalidAdapterName"):
        Metadata(name)


def test_a_name_is_mended():
    with pytest.raises(ConfigError, match="such as name=ficino_music"):
        Metadata("ficino-music")


@pytest.mark.parametrize("signature", ["abc", "9" * 39, "G" * 40, "A" * 40])
def test_a_signature_has_40_lowercase_digits(signature):
    with pytest.raises(ConfigError, match="40 lowercase hexadecimal digits"):
        Metadata("good", signature=signature)


def test_a_signature_of_another_release_is_in_the_identifier():
    assert Metadata("a", signature="0123456789" * 4).identifier == "fmadapter-a-0123456"


def test_tamms_attention_equals_one_with_split_halves_from_the_exported_weights(package):
    """The runtime rotates halves; tamm rotates neighbours; the permutation makes them agree."""
    pytest.importorskip("tamm")
    state = {name: t.half().float() for name, t in random_state().items()}
    model = tamm_model()
    model.load_state_dict(state, strict=False)
    ours, theirs = attention_of(model, package)
    assert_same(ours, theirs, depth=1)
    assert (theirs - attention_of(model, None)[0]).abs().max() > 0.1, "the adapter counts"


def test_without_the_permutation_it_would_not(package, monkeypatch, tmp_path):
    pytest.importorskip("tamm")
    state = {name: t.half().float() for name, t in random_state().items()}
    model = tamm_model()
    model.load_state_dict(state, strict=False)
    monkeypatch.setattr(fmadapter, "split_halves", lambda rows, heads: rows)
    unpermuted = write(tmp_path / "unpermuted.fmadapter", state)
    ours, theirs = attention_of(model, unpermuted)
    assert (ours - theirs).abs().max() > 0.01


@torch.no_grad()
def attention_of(model, package) -> tuple[torch.Tensor, torch.Tensor]:
    """Layer 0's attention on the same input: by halves from the package, and tamm's own."""
    layer = model.layers.segment_0.layer_0.attention
    seen = {}

    def keep(module, args, output):
        seen["x"] = args[0]
        seen["y"] = output[0] if isinstance(output, tuple) else output

    handle = layer.register_forward_hook(keep)
    model(torch.randint(10, 100, (1, 11), generator=torch.Generator().manual_seed(2)))
    handle.remove()
    tensors = None
    if package is not None:
        file = package / "adapter_weights.bin"
        tensors = [
            torch.from_numpy(blob.load(file, record).copy()).float() for record in blob.read(file)
        ]
    return halves_attention(layer, seen["x"], tensors), seen["y"]


def halves_attention(layer, x, tensors, heads=4, kv_heads=2, dim=16) -> torch.Tensor:
    """One attention layer as the runtime is thought to have it: halves, and a scale of 0.5."""
    rank = 4

    def lora(place, x):
        if tensors is None:
            return 0.0
        a, b = tensors[2 * place].view(rank, -1), tensors[2 * place + 1].view(-1, rank)
        return 0.5 * (x @ a.T @ b.T)

    normed = F.rms_norm(x, (64,), layer.norm.weight, layer.norm.eps)
    wq, wk, wv = layer.qkv_transform.wrapped.fused_linear.weight.split([64, 32, 32])
    q = normed @ split_rows(wq, heads).T + lora(0, normed)
    k = normed @ split_rows(wk, kv_heads).T + lora(1, normed)
    v = normed @ wv.T + lora(2, normed)
    norms = layer.qk_norm.query_norm, layer.qk_norm.key_norm
    q, k = (
        F.rms_norm(rotated(part, n, dim), (dim,), split_rows(norm.weight, 1), norm.eps)
        for part, n, norm in ((q, heads, norms[0]), (k, kv_heads, norms[1]))
    )
    v = v.unflatten(-1, (kv_heads, dim)).transpose(1, 2)
    k = quantised(k, layer.kv_quantizer.key_quantizer)
    v = quantised(v, layer.kv_quantizer.value_quantizer)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    y = y.transpose(1, 2).flatten(2)
    return x + y @ layer.output_transform.wrapped.weight.T + lora(3, y)


def split_rows(rows, heads):
    """Written anew, so that the function under test does not check itself."""
    even = [i for head in rows.chunk(heads) for i in (head[0::2], head[1::2])]
    return torch.cat(even)


def rotated(x, heads, dim):
    """(B, T, heads * dim) -> (B, heads, T, dim), turned by position: i with i + dim / 2."""
    x = x.unflatten(-1, (heads, dim)).transpose(1, 2)
    frequencies = 500_000.0 ** (-torch.arange(0, dim, 2) / dim)
    angles = torch.arange(x.shape[2])[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def quantised(x, quantiser):
    scale, _ = quantiser.activation_post_process.calculate_qparams()
    return (x / scale).round().clamp(-128, 127) * scale


def test_a_layout_of_another_rank_is_refused(tmp_path):
    other = dataclasses.replace(MINI, rank=8)
    with pytest.raises(ModelError, match=r"has shape \(64, 4\), not \(64, 8\)"):
        write(tmp_path / "rank.fmadapter", random_state(), layout=other)
