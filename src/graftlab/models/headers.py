"""Whether a model folder can be trained, from config.json and the weights' headers alone.

Everything here is answered before a weight is read, so that a folder that cannot serve costs a
second, not a download into memory and a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.models.quantization.packed import comes_as, unpacked
from graftlab.models.weights import INDEX, SINGLE, StoredTensor, read_json, stored_tensors
from graftlab.types import Message

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer

EMBEDDING = re.compile(r"(^|\.)(embed_tokens|embed_in|wte|word_embeddings)\.weight$")
HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
FLOATS = ("F64", "F32", "F16", "BF16")
HUB_ID = re.compile(r"[\w.-]+/(?!.*(?i:gptq|awq|fp8|bnb|int[48]|[48]-?bit|mlx|quant))[\w.-]+")
"""A name on the hub, but for those that say themselves that the model is quantised."""

_LAYER = re.compile(r"(?:model|transformer|gpt_neox)\.(?:layers|h)\.(\d+)\.")
_TABLE = re.compile(r"inv_freq$|masked_bias$|\.attn\.bias$|\.attention\.bias$")
_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}  # of older exporters
_PARTS = re.compile(
    r"\.(qweight|qzeros|g_idx|weight_packed|weight_scale|weight_scale_inv|scale_weight"
    r"|SCB|weight\.absmax|weight\.quant_map|weight\.quant_state\.\w+|scales|\w+_blocks|\w+_scales)$"
)


def check_headers(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError naming all in which the folder's files contradict each other."""
    refuse_quantised(folder, config)
    tensors = unpacked(folder, config, stored_tensors(folder))
    if how := _quantised_tensors(tensors):
        raise ModelError(f"{folder} is quantised ({how}). {advice(config)}")
    problems = [*_missing(folder, tensors), *_contradictions(config, tensors)]
    if problems:
        raise ModelError(
            f"{folder}: its files do not belong together: {'; '.join(problems)}. Copy the folder "
            "again, with all files of one version."
        )


def refuse_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for a folder that says of itself that it is quantised; weights unread.

    Not for those of bitsandbytes that are read here (`quantization/packed.py`).
    """
    if comes_as(config) is not None:
        return
    for place in (config, text_config(config)):
        for key in ("quantization_config", "compression_config", "quantization"):
            if found := place.get(key):
                how = _method(found) or ("MLX" if key == "quantization" else "by an unnamed method")
                raise ModelError(
                    f"{folder} is quantised ({how}, config.json: {key}). {advice(config)}"
                )
    for name, method in _FILES.items():
        if (folder / name).is_file():
            raise ModelError(f"{folder} is quantised ({method}, {name}). {advice(config)}")


def advice(config: Mapping[str, Any]) -> str:
    """Which base to take in place of a quantised one; by name where config.json has the name."""
    named = (config.get(key) for key in ("base_model", "_name_or_path"))
    known = [name for name in named if isinstance(name, str) and HUB_ID.fullmatch(name)]
    of = f"{known[0]}, of which it was made (model.hub={known[0]})" if known else "the same model"
    return (
        "Of bases that come quantised, bitsandbytes' nf4 and int8 alone are read: use the "
        f"full-precision folder of {of}."
    )


def embedding_rows(folder: Path) -> int | None:
    """Rows of the embedding in `folder`; what config.json says where no weights are there."""
    try:
        embedding = find_embedding(stored_tensors(folder))
    except ModelError:
        embedding = None
    if embedding is not None:
        return embedding[1].shape[0]
    rows = _text(read_json(folder / "config.json")).get("vocab_size")
    return rows if isinstance(rows, int) else None


def check_vocabulary(tokenizer: Tokenizer, place: Path, folder: Path) -> None:
    """Raise ModelError where text could get ids that the embedding in `folder` has no rows for.

    `place` is where the tokenizer lies.

    Tokens beyond it that no text can hold are no harm: the text-only Gemma 3 has one for images.
    """
    rows = embedding_rows(folder)
    beyond = tokenizer.beyond(rows) if rows is not None else {}
    turns = [Message("user", "Hi"), Message("assistant", "Hi")] if beyond else []
    shown = set(tokenizer.render(turns, generation_prompt=False)) if turns else set()
    harmful = sorted(
        token
        for token, index in beyond.items()
        if token not in tokenizer.reserved or token in tokenizer.template or index in shown
    )
    if harmful:
        raise ModelError(
            f"{place}: the tokenizer gives ids that the model has no embedding for: "
            f"{', '.join(f'{token!r} is {beyond[token]}' for token in harmful[:3])}"
            f"{', ...' if len(harmful) > 3 else ''}, and there are {rows:,} rows. The tokenizer is "
            "another model's, or tokens were added and the embedding was never resized: "
            "model.resize_token_embeddings(len(tokenizer)) in transformers, then save both."
        )


def find_embedding(tensors: Mapping[str, StoredTensor]) -> tuple[str, StoredTensor] | None:
    """Name and place of the embedding of tokens; None where it has no name that is known."""
    return next(((name, t) for name, t in tensors.items() if EMBEDDING.search(name)), None)


def weights_in_layers(names: Iterable[str]) -> list[str]:
    """Those that are weights of a decoder layer, not tables that older versions saved."""
    return sorted(name for name in names if _LAYER.match(name) and not _TABLE.search(name))


def _method(found: Any) -> str:
    if not isinstance(found, dict):
        return ""
    loaded = {"load_in_4bit": 4, "load_in_8bit": 8}
    bits = found.get("bits") or next((n for key, n in loaded.items() if found.get(key)), None)
    method = str(found.get("quant_method") or found.get("quantization_method") or "")
    if method == "bitsandbytes" and bits == 4:
        method += f", {found.get('bnb_4bit_quant_type', 'fp4')}"
        if (storage := found.get("bnb_4bit_quant_storage", "uint8")) != "uint8":
            method += f" in {storage}"
    return f"{method}, {bits} bit" if method and bits else method


def _quantised_tensors(tensors: Mapping[str, StoredTensor]) -> str | None:
    """How the tensors show that they are codes rather than weights; None where they do not."""
    for name, tensor in tensors.items():
        if _PARTS.search(name) and _is_code(name, tensors):
            return f"it holds {name}"
        if name.endswith(".weight") and len(tensor.shape) >= 2 and tensor.dtype not in FLOATS:
            return f"{name} is stored as {tensor.dtype}"
    return None


def _is_code(name: str, tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether a part with a telling name belongs to codes: plain words need a second sign."""
    stem, _, part = name.rpartition(".")
    if part == "scales":
        return f"{stem}.biases" in tensors or f"{stem}.weight" in tensors
    if part.endswith("_scales"):
        return f"{stem}.{part.removesuffix('_scales')}_blocks" in tensors
    if part.endswith("_blocks"):
        return f"{stem}.{part.removesuffix('_blocks')}_scales" in tensors
    return True


def _missing(folder: Path, tensors: Mapping[str, StoredTensor]) -> Iterator[str]:
    if (folder / SINGLE).is_file():
        return
    named = read_json(folder / INDEX)["weight_map"]
    absent = sorted(name for name in named if name not in tensors)
    if absent:
        yield f"{INDEX} names {len(absent)} tensors that no file holds ({', '.join(absent[:2])})"


def _contradictions(
    config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> Iterator[str]:
    told = _text(config)
    rows, depth = told.get("vocab_size"), told.get("num_hidden_layers")
    for pattern in (EMBEDDING, HEAD):
        found = next(((n, t) for n, t in tensors.items() if pattern.search(n)), None)
        if found and isinstance(rows, int) and found[1].shape[0] != rows:
            yield f"config.json says vocab_size {rows:,}, {found[0]} has {found[1].shape[0]:,} rows"
    numbers = [int(layer[1]) for name in tensors if (layer := _LAYER.match(name))]
    # Layers that predict further tokens lie behind the last, and transformers leaves them out.
    extra = told.get("num_nextn_predict_layers") or 0
    has = max(numbers, default=0) + 1
    if numbers and isinstance(depth, int) and not depth <= has <= depth + extra:
        yield f"config.json says num_hidden_layers {depth}, the weights have {has}"


def _text(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the text model."""
    return {**config, **text_config(config)}


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says of the text model apart. Raises ModelError for no object."""
    found = config.get("text_config") or {}
    if not isinstance(found, dict):
        raise ModelError(f"text_config in config.json is {found!r}, not an object: it is damaged.")
    return found
