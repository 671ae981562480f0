"""What a GGUF file's header says of a model: transformers' config in llama.cpp's words.

    config.json  --described-->  llama.block_count, ...  --families.config_of-->  config.json again

Both ways use one table of architectures (`models/gguf/families.py`), and what does not come back as
it was is refused: the file has no place for it, and llama.cpp would compute something else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from graftlab.errors import ModelError
from graftlab.exports.gguf.rotation import rope_metadata, settled
from graftlab.exports.gguf.writing import Entry, write_gguf
from graftlab.models.gguf.families import FAMILIES, FULL_EVERY, config_of
from graftlab.models.gguf.file import GGUFFile, read_gguf
from graftlab.models.gguf.weights import file_name
from graftlab.models.weights import StoredTensor

ALIKE = {"mistral": "llama"}
"""Kinds of models that llama.cpp computes as another's."""
INERT = frozenset(
    {
        *("model_type", "architectures", "tie_word_embeddings", "use_cache", "dtype"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "pretraining_tp"),
        *("attention_dropout", "resid_pdrop", "embd_pdrop", "max_window_layers"),
        *("transformers_version", "_name_or_path", "_sliding_window_pattern"),
    }
)
"""Keys of a config that change no product of a model, or that tensors and the tokenizer say."""
UNWINDOWED = ("llama", "phi3")
"""Architectures that llama.cpp computes without a window."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a file says of its model."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    """Those that are no weights: how positions are turned, in fp32."""
    header: GGUFFile
    """As our reader finds it, with a place for every weight."""
    notes: tuple[str, ...] = ()


def described(config: Any, shapes: Mapping[str, tuple[int, ...]], *, name: str) -> Described:
    """What the file of a model says, by transformers' config and the shapes of its parameters.

    Raises ModelError for an architecture, or a setting, that the format has no place for.
    """
    architecture = architecture_of(config, name)
    head = int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    rope, tensors = rope_metadata(config, head, name)
    told = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.key_length": head,
        "attention.value_length": head,
        "vocab_size": shapes["model.embed_tokens.weight"][0],
        **rope,
        **_more(config, architecture),
    }
    metadata = {f"{architecture}.{key}": value for key, value in told.items()}
    metadata = {"general.architecture": architecture, "general.type": "model", **metadata}
    with TemporaryDirectory() as place:
        file = Path(place) / "header.gguf"
        entries = {name: Entry("F32", values.shape) for name, values in tensors.items()}
        write_gguf(file, metadata, entries, tensors.values())
        header = _with_places(read_gguf(file), shapes)
        _require_the_same(config, config_of(header), name)
    return Described(metadata, tensors, header, tuple(_notes(config, architecture)))


def architecture_of(config: Any, name: str) -> str:
    """llama.cpp's name of the architecture. Raises ModelError for one that is not written."""
    known = {family.model_type: own for own, family in FAMILIES.items()} | ALIKE
    if config.model_type not in known:
        raise ModelError(
            f"{name} is a {config.model_type} model, which is not written as GGUF; these are: "
            f"{', '.join(sorted(known))}. target=merged writes a folder, which llama.cpp's own "
            "converter may read."
        )
    return known[config.model_type]


def _more(config: Any, architecture: str) -> dict[str, Any]:
    """What one architecture says beyond the others."""
    told: dict[str, Any] = {}
    if architecture in FULL_EVERY:
        told["attention.sliding_window"] = config.sliding_window
        told |= _pattern(config.layer_types, FULL_EVERY[architecture])
    if architecture == "gemma2":
        told["attn_logit_softcapping"] = float(config.attn_logit_softcapping or 0)
        told["final_logit_softcapping"] = float(config.final_logit_softcapping or 0)
    if architecture == "phi3":
        told["attention.sliding_window"] = config.sliding_window
        told["rope.scaling.original_context_length"] = config.original_max_position_embeddings
    return told


def _pattern(layers: list[str], usual: int) -> dict[str, int]:
    """Every how many layers one attends to all, where it is not as usual."""
    for every in (usual, *range(1, len(layers) + 2)):
        found = [(number + 1) % every != 0 for number in range(len(layers))]
        if found == [kind == "sliding_attention" for kind in layers]:
            return {} if every == usual else {"attention.sliding_window_pattern": every}
    return {}  # what is read then differs, and is refused


def _notes(config: Any, architecture: str) -> list[str]:
    window = getattr(config, "sliding_window", None)
    if architecture not in UNWINDOWED or not window or window >= config.max_position_embeddings:
        return []
    return [
        f"llama.cpp computes a {config.model_type} model without its window of {window:,} tokens: "
        "beyond them it answers otherwise than training's model"
    ]


def _with_places(file: GGUFFile, shapes: Mapping[str, tuple[int, ...]]) -> GGUFFile:
    weights = {
        file_name(file, parameter): StoredTensor(file.path, "F32", shape, 0, 0)
        for parameter, shape in shapes.items()
    }
    return replace(file, tensors={**file.tensors, **weights})


def _require_the_same(config: Any, read: dict[str, Any], name: str) -> None:
    """Raise ModelError where what is read of a header is another config."""
    from transformers import CONFIG_MAPPING

    made = CONFIG_MAPPING[read["model_type"]](
        **{k: v for k, v in read.items() if k != "model_type"}
    )
    wanted, found = (settled(one).to_dict() for one in (config, made))
    asked = type(config)().to_dict().keys() & found.keys() - INERT
    others = sorted(key for key in asked if not _equal(wanted.get(key), found[key]))
    if others:
        said = "; ".join(f"{key} is {wanted.get(key)!r}, not {found[key]!r}" for key in others[:3])
        raise ModelError(
            f"{name} cannot be written as GGUF: of what its config.json says the format would lose "
            f"{', '.join(others)} ({said}). target=merged writes a folder."
        )


def _equal(one: Any, other: Any) -> bool:
    """Whether two settings are the same: numbers as far as fp32 holds them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)
