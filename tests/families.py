"""Every family of causal language models that transformers knows, as a miniature.

A family is a `model_type` of a config.json. Its miniature is the family's own configuration with
small numbers in it, found by the names of its fields; `EXCEPTIONS` has what that leaves wrong. The
kinds of `miniatures.py` are built as there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from miniatures import KINDS, build, save_tokenizer, stirred

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_LAYERS = 6

_SIZES: dict[int, str] = {
    1: "n_group topk_group first_k_dense_replace n_shared_experts",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_blocks num_kv_heads "
    "num_key_value_heads swa_num_key_value_heads num_experts_per_tok moe_topk moe_k "
    "linear_num_key_heads zero_expert_num",
    4: "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads "
    "swa_num_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "linear_num_value_heads linear_num_heads time_step_rank",
    8: "rotary_dim qk_rope_head_dim index_topk laurel_rank",
    16: "head_dim swa_head_dim dim_head d_head d_kv attention_head_size kv_channels sliding_window "
    "window_size sliding_window_size attention_window_size attention_chunk_size q_lora_rank "
    "kv_lora_rank o_lora_rank qk_nope_head_dim v_head_dim index_head_dim query_pre_attn_scalar "
    "hidden_size_per_layer_input linear_key_head_dim linear_value_head_dim linear_head_dim "
    "state_size router_hidden_size",
    24: "qk_head_dim",
    32: "index_n_heads moe_intermediate_size shared_expert_intermediate_size "
    "shared_experts_intermediate_size "
    "moe_shared_expert_intermediate_size expert_ffn_hidden_size shared_intermediate_size",
    64: "hidden_size d_model n_embd emb_dim embedding_dim embedding_size word_embed_proj_dim "
    "input_embedding_size output_embedding_size",
    128: "intermediate_size ffn_dim decoder_ffn_dim dff dim_ff d_inner n_inner ffn_hidden_size "
    "feed_forward_size intermediate_size_mlp dense_intermediate_size",
    2048: "max_position_embeddings n_positions max_seq_len",
}
"""Fields of configurations, by what a miniature has in them."""
SIZES = {name: size for size, names in _SIZES.items() for name in names.split()}
RATES = {"initializer_range": 0.125, "init_std": 0.125}
VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size")
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
PER_LAYER = (
    *("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types", "no_rope_layers"),
    *("layer_rope_theta", "attention_layers", "num_attention_heads_per_layer"),
    "activation_sparsity_pattern",
)
"""Fields that hold a value for each layer."""
LATENT = {"num_key_value_heads": 4, "head_dim": 8}
"""Where keys are made of a latent: as many as queries, and only a part of each is rotated."""

_BYTES = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1, "head_dim": 16}
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "blt": {
        "encoder_hash_byte_group_vocab": 64,
        **{
            f"{part}_config": {
                **_BYTES,
                "vocab_size": 400,
                "num_key_value_heads": 4,
                "intermediate_size": 128,
                "hidden_size_global": 64,
            }
            for part in ("patcher", "encoder", "decoder", "global")
        },
    },
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 128, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "deepseek_v4": {
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
        "qk_rope_head_dim": 8,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {"num_kv_shared_layers": 0, "intermediate_size": 128},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
        "hc_lowrank": 16,
    },
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"]},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "mamba_dt_rank": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""Fields of a family that the rules above leave wrong."""


UNTRIED = ("fuyu", "gemma4_assistant", "gemma4_unified_assistant")
"""Parts of larger models, which are nothing by themselves."""


def families() -> list[str]:
    """Every model type that transformers has a causal language model for, but `UNTRIED`."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return sorted(NAMES.keys() - set(UNTRIED))


def save_family(model_type: str, folder: Path) -> Path:
    """The miniature of a family in `folder`.

    One with an encoder, or with more than text, is its configuration alone: that is what it is
    refused by.
    """
    from transformers import CONFIG_MAPPING

    vocab_size = save_tokenizer(folder)
    family = CONFIG_MAPPING[model_type]
    if _is_text_decoder(family):
        build_family(model_type, vocab_size).save_pretrained(folder)
    else:
        family().save_pretrained(folder)
    return folder


def build_family(model_type: str, vocab_size: int) -> PreTrainedModel:
    """A random fp32 model of the family."""
    import transformers

    for kind, (config_name, _, _) in KINDS.items():
        if getattr(transformers, config_name).model_type == model_type:
            return build(kind, vocab_size=vocab_size)
    family = transformers.CONFIG_MAPPING[model_type]
    config = family(**small_fields(model_type, family().to_dict(), vocab_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return stirred(transformers.AutoModelForCausalLM.from_config(config))


def small_fields(model_type: str, usual: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """What the miniature's configuration is made of; `usual` is the family's own."""
    fields = {key: size for key, size in {**SIZES, **RATES}.items() if _is_number(usual.get(key))}
    fields |= {key: vocab_size for key in VOCABULARIES if key in usual}
    if "num_key_value_heads" in usual:
        fields["num_key_value_heads"] = 2
    for key, token in usual.items():
        if key.endswith("_token_id") and token is not None:
            fields[key] = {"eos_token_id": 2, "pad_token_id": 0}.get(key, 1)
    fields |= _layers(usual, fields)
    if "kv_lora_rank" in fields:
        fields |= {key: value for key, value in LATENT.items() if key in fields}
    return {**fields, **EXCEPTIONS.get(model_type, {})}


def _layers(usual: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Per-layer settings with a layer of each kind, and how many layers that makes."""
    lists = {key: usual[key] for key in PER_LAYER if isinstance(usual.get(key), list)}
    depth = max((len(values) for values in lists.values()), default=0)
    lists = {key: values for key, values in lists.items() if len(values) == depth}
    kinds: dict[str, int] = {}
    for layer in range(depth):
        kinds.setdefault(json.dumps([values[layer] for values in lists.values()]), layer)
    chosen = list(kinds.values())[:MOST_LAYERS]
    if not chosen:
        return {}
    chosen += chosen[-1:] * (2 - len(chosen))
    found: dict[str, Any] = {key: [values[n] for n in chosen] for key, values in lists.items()}
    if "num_attention_heads_per_layer" in found:
        found["num_attention_heads_per_layer"] = [fields["num_attention_heads"]] * len(chosen)
    return found | {key: len(chosen) for key in DEPTHS if key in fields}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_text_decoder(family: type) -> bool:
    """Whether its configuration is one of a decoder of text."""
    try:
        usual: Any = family()
        parts = any(key.startswith(("vision_", "audio_")) for key in usual.to_dict())
        return not parts and not usual.is_encoder_decoder and usual.get_text_config() is usual
    except ValueError:  # of several texts
        return False
