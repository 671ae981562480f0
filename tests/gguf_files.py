"""Small GGUF files, written by gguf-py from miniature models as llama.cpp's converter does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
}
"""Kind of a miniature -> llama.cpp's name."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def write_gguf(
    folder: Path, path: Path, *, kind: str = "F32", template: bool = True, **changes: Any
) -> Path:
    """The model in `folder` as a GGUF file whose matrices are of the type `kind`.

    `changes` replaces metadata by its key in full, such as `general__type` for general.type; None
    leaves a key out.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    name = {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    architecture = ARCHITECTURES[name]
    writer = gguf.GGUFWriter(path, changes.pop("architecture", architecture))
    for key, value in (describe(config, architecture) | vocabulary(folder)).items():
        _add(writer, key, changes.pop(key.replace(".", "__"), value))
    if template:
        writer.add_chat_template(_template(folder))
    for key, value in changes.items():
        _add(writer, key.replace("__", "."), value)
    model = AutoModelForCausalLM.from_pretrained(folder)
    add_tensors(writer, model, architecture, kind=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def describe(config: Any, architecture: str) -> dict[str, Any]:
    """The metadata of such a model."""
    rope = config.rope_parameters
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    told = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
    }
    if architecture.startswith("gemma"):
        told["attention.sliding_window"] = config.sliding_window
        told["attention.sliding_window_pattern"] = [
            kind == "sliding_attention" for kind in config.layer_types
        ]
    if architecture == "gemma2":
        told["attn_logit_softcapping"] = config.attn_logit_softcapping
        told["final_logit_softcapping"] = config.final_logit_softcapping
    return {f"{architecture}.{key}": value for key, value in told.items()}


def vocabulary(folder: Path) -> dict[str, Any]:
    """The metadata of a byte-level BPE that lies in `folder`."""
    rules = json.loads((folder / "tokenizer.json").read_text())
    ids = dict(rules["model"]["vocab"])
    special = {token["content"]: token["id"] for token in rules["added_tokens"]}
    tokens = [token for token, _ in sorted((ids | special).items(), key=lambda pair: pair[1])]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if t in special else NORMAL for t in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in rules["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": ids.get("<|im_end|>", special["<|im_end|>"]),
        "tokenizer.ggml.padding_token_id": special["<|endoftext|>"],
    }


def sentencepiece(pieces: Sequence[tuple[str, float, int]], **more: Any) -> dict[str, Any]:
    """Metadata of a vocabulary of pieces: text, score and type."""
    fallback = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    tokens = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), *fallback, *pieces]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [token for token, _, _ in tokens],
        "tokenizer.ggml.scores": [score for _, score, _ in tokens],
        "tokenizer.ggml.token_type": [kind for *_, kind in tokens],
        "tokenizer.ggml.unknown_token_id": 0,
        **{f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }


LETTERS = [(letter, -100.0, NORMAL) for letter in "\u2581abc"]


def add_tensors(writer: Any, model: Any, architecture: str, *, kind: str) -> None:
    """All weights, under llama.cpp's names and with its transforms."""
    config = model.config
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        values = parameter.detach().float().numpy()
        if architecture == "llama" and ".q_proj" in name:
            values = _in_pairs(values, config.num_attention_heads)
        if architecture == "llama" and ".k_proj" in name:
            values = _in_pairs(values, config.num_key_value_heads)
        if architecture.startswith("gemma") and "norm" in name:
            values = values + 1
        theirs = f"{names.get_name(module)}.{leaf}"
        if values.ndim == 1 or kind == "F32":
            writer.add_tensor(theirs, values)
        else:
            packed, known = quantised(values, kind), gguf.GGMLQuantizationType[kind]
            writer.add_tensor(theirs, packed, raw_dtype=known)


def quantised(values: np.ndarray, kind: str) -> np.ndarray:
    """A matrix in blocks; random ones of that type where gguf-py cannot make them of values."""
    known = gguf.GGMLQuantizationType[kind]
    try:
        return gguf.quants.quantize(values, known)
    except NotImplementedError:
        return random_blocks(values.shape, kind)


SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}
SCALES |= dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2))
"""Where the fp16 scales of a block are; at its start for all others."""


def random_blocks(shape: tuple[int, ...], kind: str, *, seed: int = 0) -> np.ndarray:
    """Random codes (rows, bytes of a row) with scales of usual size."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=np.uint8)
    for place in SCALES.get(kind, (0,)):
        scales = rng.normal(0, 0.01, len(blocks)).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(shape[0], -1)


def _in_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp turns them, from transformers' halves."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _template(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    return str(config["chat_template"])


def _add(writer: Any, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
