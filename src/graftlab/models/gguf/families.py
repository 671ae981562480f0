"""The architectures that can be read: llama.cpp's names and transforms, and transformers' config.

    blk.7.attn_q.weight   ->   model.layers.7.self_attn.q_proj.weight      every family
    rows of q and k       in pairs for llama.cpp's rotation                llama: undone
    norms                 plus one                                         Gemma: undone

What llama.cpp knows by the name of an architecture alone stands here; all else is the file's word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graftlab.errors import ModelError, did_you_mean
from graftlab.models.gguf.file import GGUFFile
from graftlab.models.gguf.metadata import Metadata
from graftlab.models.gguf.rope import rope_parameters

OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
"""transformers' module outside the layers -> llama.cpp's."""
_ATTENTION = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
_GATED = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
LLAMA = {**_ATTENTION, **_GATED, "post_attention_layernorm": "ffn_norm"}
"""transformers' module of a layer -> llama.cpp's."""
GEMMA = {
    **_ATTENTION,
    **_GATED,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
PHI3 = {
    "input_layernorm": "attn_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_27B = (46, 62)
"""Layers of Gemma 2 and 3 of 27B, which scale attention by hidden size over heads."""

FULL_EVERY = {"gemma2": 2, "gemma3": 6}
"""Where the file does not say it: every so many layers one attends to more than its window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One architecture of llama.cpp in transformers' terms."""

    model_type: str
    model_class: str
    modules: Mapping[str, str]
    """transformers' module of a layer -> llama.cpp's."""
    more: Callable[[GGUFFile, int], dict[str, Any]] = field(default=lambda file, head_dim: {})
    """What else the config says."""
    rotates_pairs: bool = False
    """Whether rows of q and k lie in pairs that are turned together, not in halves."""
    partial_rotary: bool = False
    """Whether a part of each head may be turned alone."""
    norm_offset: float = 0.0
    """What llama.cpp adds to the weights of norms."""


def family_of(file: GGUFFile) -> Family:
    """The file's architecture. Raises ModelError for one that is not known, and other kinds."""
    name, kind = file.architecture, file.metadata.get("general.type", "model")
    if kind == "mmproj" or name == "clip":
        raise ModelError(
            f"{file.path} is an mmproj file, which sees or hears for another model: name that one."
        )
    if kind != "model":
        raise ModelError(f"{file.path} is a GGUF file of the type {kind}, not a model.")
    if name not in FAMILIES:
        raise ModelError(
            f"{file.path} is of the architecture {name}, which cannot be read yet; these can: "
            f"{', '.join(FAMILIES)}.{did_you_mean(name, FAMILIES)} The model's own folder in "
            "safetensors can be trained all the same: model=hf model.path=DIR."
        )
    if Metadata(file).has("expert_count") and Metadata(file).value("expert_count"):
        raise ModelError(
            f"{file.path} is a mixture of experts, which cannot be read yet: take its folder in "
            "safetensors, model=hf model.path=DIR."
        )
    return FAMILIES[name]


def config_of(file: GGUFFile) -> dict[str, Any]:
    """What transformers' config.json says of such a model. Raises ModelError."""
    family, told = family_of(file), Metadata(file)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(f"{file.path} holds no token_embd.weight: is it a vocabulary alone?")
    heads, hidden = told.integer("attention.head_count"), told.integer("embedding_length")
    head_dim = told.integer("attention.key_length", hidden // heads)
    if told.integer("attention.value_length", head_dim) != head_dim:
        raise ModelError(f"{file.path}: its values have another width than its keys.")
    config = {
        "architectures": [family.model_class],
        "model_type": family.model_type,
        "hidden_size": hidden,
        "intermediate_size": told.integer("feed_forward_length"),
        "num_hidden_layers": told.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": told.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": told.integer("context_length"),
        "rms_norm_eps": told.number("attention.layer_norm_rms_epsilon"),
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": rope_parameters(file, head_dim=head_dim, partial=family.partial_rotary),
    }
    _require_sizes(file, config)
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        config[f"{name}_token_id"] = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
    return config | family.more(file, head_dim)


def _require_sizes(file: GGUFFile, config: Mapping[str, Any]) -> None:
    """Raise ModelError where metadata says of the first layer, or how many there are, what the
    tensors do not: a model of any other size would be made before its weights are looked at.
    """
    found = [re.match(r"blk\.(\d{1,9})\.", name) for name in file.tensors]
    layers, told = len({match[1] for match in found if match}), config["num_hidden_layers"]
    if told != layers:
        raise ModelError(
            f"{file.path}: {file.architecture}.block_count is {told:,}, and it holds {layers:,} "
            "layers. Copy it again, or take another file of the model."
        )
    width, hidden = config["head_dim"], config["hidden_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    if heads % kv_heads or width % 2:
        raise ModelError(
            f"{file.path}: {heads} heads of {width} cannot share {kv_heads} of keys and values."
        )
    shared = {"attn_k": kv_heads * width}
    if "blk.0.attn_qkv.weight" in file.tensors:
        shared = {"attn_qkv": (heads + 2 * kv_heads) * width}
    wanted = {
        "token_embd.weight": (config["vocab_size"], hidden),
        **{f"blk.0.{name}.weight": (rows, hidden) for name, rows in shared.items()},
        "blk.0.attn_output.weight": (hidden, heads * width),
        "blk.0.ffn_down.weight": (hidden, config["intermediate_size"]),
    }
    for name, shape in wanted.items():
        if name in file.tensors and file.tensors[name].shape != shape:
            raise ModelError(
                f"{file.path}: {name} is {file.tensors[name].shape}, and by the metadata it would "
                f"be {shape}."
            )
    if absent := [name for name in wanted if name not in file.tensors]:
        raise ModelError(f"{file.path} lacks {', '.join(absent)}.")


def _llama(file: GGUFFile, head_dim: int) -> dict[str, Any]:
    return {"attention_bias": "blk.0.attn_output.bias" in file.tensors}


def _phi3(file: GGUFFile, head_dim: int) -> dict[str, Any]:
    told = Metadata(file)
    length = told.integer("rope.scaling.original_context_length", told.integer("context_length"))
    return {
        "sliding_window": told.integer("attention.sliding_window", 0, least=0) or None,
        "original_max_position_embeddings": length,
    }


def _gemma(file: GGUFFile, head_dim: int) -> dict[str, Any]:
    told = Metadata(file)
    layers, heads = told.integer("block_count"), told.integer("attention.head_count")
    hidden = told.integer("embedding_length")
    key = f"{file.architecture}.attention.sliding_window_pattern"
    pattern = file.metadata.get(key, FULL_EVERY[file.architecture])
    if type(pattern) is int and pattern > 0:
        pattern = [(number + 1) % pattern != 0 for number in range(layers)]
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise ModelError(f"{file.path}: {key} does not say of {layers} layers whether they slide.")
    return {
        "query_pre_attn_scalar": hidden // heads if layers in GEMMA_27B else head_dim,
        "sliding_window": told.integer("attention.sliding_window"),
        "layer_types": [f"{'sliding' if slides else 'full'}_attention" for slides in pattern],
    }


def _gemma2(file: GGUFFile, head_dim: int) -> dict[str, Any]:
    told = Metadata(file)
    return _gemma(file, head_dim) | {
        "attn_logit_softcapping": told.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": told.number("final_logit_softcapping", 30.0),
    }


def _gemma3(file: GGUFFile, head_dim: int) -> dict[str, Any]:
    theta = Metadata(file).number("rope.freq_base_swa", 1e4)
    rope = {
        "full_attention": rope_parameters(file, head_dim=head_dim),
        "sliding_attention": {"rope_type": "default", "rope_theta": theta},
    }
    return _gemma(file, head_dim) | {"rope_parameters": rope}


FAMILIES = {
    "llama": Family(
        model_type="llama",
        model_class="LlamaForCausalLM",
        modules=LLAMA,
        more=_llama,
        rotates_pairs=True,
    ),
    "qwen2": Family(model_type="qwen2", model_class="Qwen2ForCausalLM", modules=LLAMA),
    "qwen3": Family(model_type="qwen3", model_class="Qwen3ForCausalLM", modules=LLAMA),
    "phi3": Family(
        model_type="phi3",
        model_class="Phi3ForCausalLM",
        modules=PHI3,
        more=_phi3,
        partial_rotary=True,
    ),
    "gemma2": Family(
        model_type="gemma2",
        model_class="Gemma2ForCausalLM",
        modules=GEMMA,
        more=_gemma2,
        norm_offset=1.0,
    ),
    "gemma3": Family(
        model_type="gemma3_text",
        model_class="Gemma3ForCausalLM",
        modules=GEMMA,
        more=_gemma3,
        norm_offset=1.0,
    ),
}
"""By llama.cpp's name. Mistral's and SmolLM's files are of the architecture llama."""
