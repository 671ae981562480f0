"""What the miniature of each architecture adds whose layers carry state along the row.

A value of None takes the field of other miniatures out: a Mamba knows no heads.
"""

from __future__ import annotations

from typing import Any

MIXED = {"layer_types": ["linear_attention", "full_attention"]}
MAMBA2: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
}
DELTA: dict[str, Any] = {
    **MIXED,
    "head_dim": 16,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
LATENT: dict[str, Any] = {
    **MIXED,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
GRANITE = {**MIXED, **MAMBA2, "shared_intermediate_size": 128}
NO_ATTENTION = {
    "num_attention_heads": None,
    "num_key_value_heads": None,
    "intermediate_size": None,
    "max_position_embeddings": None,
}

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lfm2": (
        "Lfm2Config",
        "Lfm2ForCausalLM",
        {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    ),
    "lfm2_moe": (
        "Lfm2MoeConfig",
        "Lfm2MoeForCausalLM",
        {
            "layer_types": ["conv", "full_attention"],
            "num_dense_layers": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
    ),
    "qwen3_next": (
        "Qwen3NextConfig",
        "Qwen3NextForCausalLM",
        {**DELTA, **EXPERTS, "mlp_only_layers": [1]},
    ),
    "qwen3_5": ("Qwen3_5TextConfig", "Qwen3_5ForCausalLM", DELTA),
    "qwen3_5_moe": ("Qwen3_5MoeTextConfig", "Qwen3_5MoeForCausalLM", {**DELTA, **EXPERTS}),
    "falcon_h1": (
        "FalconH1Config",
        "FalconH1ForCausalLM",
        {**MAMBA2, "head_dim": 16, "mamba_d_ssm": 128, "lm_head_multiplier": 0.5},
    ),
    "granite4": (
        "GraniteMoeHybridConfig",
        "GraniteMoeHybridForCausalLM",
        {**GRANITE, "num_local_experts": 0, "num_experts_per_tok": 0},
    ),
    "granite4_moe": (
        "GraniteMoeHybridConfig",
        "GraniteMoeHybridForCausalLM",
        {**GRANITE, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "bamba": ("BambaConfig", "BambaForCausalLM", {**MAMBA2, "attn_layer_indices": [1]}),
    "zamba2": (
        "Zamba2Config",
        "Zamba2ForCausalLM",
        {
            "layers_block_type": ["linear_attention", "hybrid"],
            "num_key_value_heads": 4,
            "mamba_d_state": 16,
            "mamba_expand": 2,
            "mamba_ngroups": 1,
            "mamba_headdim": 32,
            "n_mamba_heads": 4,
            "chunk_size": 16,
            "time_step_min": 1e-6,  # the least that transformers clamps to, but not in single steps
            "num_mem_blocks": 1,
            "adapter_rank": 4,
            "use_mem_rope": True,
        },
    ),
    "jamba": (
        "JambaConfig",
        "JambaForCausalLM",
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ),
    "nemotron_h": (
        "NemotronHConfig",
        "NemotronHForCausalLM",
        {
            "num_hidden_layers": None,
            "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"],
            "head_dim": 16,
            "ssm_state_size": 16,
            "mamba_num_heads": 4,
            "mamba_head_dim": 32,
            "time_step_min": 1e-6,
            "n_groups": 1,
            "chunk_size": 16,
        },
    ),
    "olmo_hybrid": (
        "OlmoHybridConfig",
        "OlmoHybridForCausalLM",
        {
            **MIXED,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 4,
        },
    ),
    "minimax": (
        "MiniMaxConfig",
        "MiniMaxForCausalLM",
        {
            **MIXED,
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "block_size": 16,
        },
    ),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        "RecurrentGemmaForCausalLM",
        {"block_types": ["recurrent", "attention"], "lru_width": 64, "attention_window_size": 16},
    ),
    "kimi_linear": (
        "KimiLinearConfig",
        "KimiLinearForCausalLM",
        {**LATENT, "linear_head_dim": 16, "linear_num_heads": 4},
    ),
    "bailing_hybrid": (
        "BailingHybridConfig",
        "BailingHybridForCausalLM",
        {**LATENT, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "num_mtp_layers": 0},
    ),
    "mamba2": (
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {
            **NO_ATTENTION,
            "num_heads": 4,
            "head_dim": 32,
            "state_size": 16,
            "n_groups": 1,
            "chunk_size": 16,
        },
    ),
}
