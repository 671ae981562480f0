"""`target=mlx`: an adapter for mlx-lm, on Apple silicon and elsewhere.

    adapters.safetensors    model.layers.0.self_attn.q_proj.lora_a (in, rank), lora_b (rank, out)
    adapter_config.json     which modules, rank, and scale = alpha / rank
    base/                   the base as mlx-lm loads it, with `target.with_base=true`, also in fewer
                            bits (`target.bits=4`)

`mlx_lm.generate --model BASE --adapter-path EXPORT` takes one for a Hugging Face model. Its own
loader refuses models with a fused q, k, v layer (0.32): `load_adapter` below puts the adapter on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, ModelError
from graftlab.exports.mlx_base import base_in_mlx
from graftlab.exports.mlx_quantized import BITS, require_mlx
from graftlab.exports.parity.spec import Bounds
from graftlab.exports.plain_base import refuse_gguf
from graftlab.exports.runtimes.base import NotHere
from graftlab.exports.runtimes.mlx import MLXRuntime
from graftlab.exports.source import Trained
from graftlab.exports.target import Target, compare_file, save_tensors, write_config
from graftlab.files.reading import read_json
from graftlab.models.hf import HFModel
from graftlab.registry import choice
from graftlab.text.load import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.runtimes.base import Runtime

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapters.safetensors", "base"
ALL_LAYERS = -1
MOST_KL = 1e-4
"""Nats between mlx-lm and training's code, both in fp32."""
LOSSES = {8: (0.98, 0.03), 4: (0.8, 0.4)}
"""Bits of the base -> the least share of the gain, and the KL in nats that they explain."""

_HF = re.compile(r"base_model\.model\.(model\.layers\.\d+\.(.+))\.lora_(.+)")
_LEAVES = {"A.weight": "lora_a", "B.weight": "lora_b", "magnitude_vector": "m"}


@dataclass(frozen=True, slots=True)
class InMLX:
    """An adapter as mlx-lm has it."""

    state: dict[str, Tensor]
    """The weights under mlx-lm's names and in its shapes."""
    keys: set[str]
    """The adapted modules, as they are named within their layer."""
    notes: tuple[str, ...] = ()
    """What is to be known before it is loaded."""


@singledispatch
def in_mlx(adapter: Trained) -> InMLX:
    """What an adapter is in mlx-lm. Raises ModelError for what has no place there."""
    for key in ("modules_to_save", "alpha_pattern", "lora_bias", "trainable_token_indices"):
        if adapter.config.get(key):
            raise ModelError(f"{adapter.path}: mlx-lm has no {key}; train without it.")
    made = InMLX({}, set())
    for name, tensor in adapter.state.items():
        match = _HF.fullmatch(name)
        if match is None or match[3] not in _LEAVES:
            raise ModelError(
                f"{adapter.path}: {name} is not a LoRA matrix in a decoder layer, and those alone "
                "have a place in mlx-lm's adapters."
            )
        leaf = _LEAVES[match[3]]
        made.state[f"{match[1]}.{leaf}"] = (tensor if leaf == "m" else tensor.T).contiguous()
        made.keys.add(match[2])
    return made


@choice("mlx")
@dataclass(kw_only=True, slots=True)
class MLX(Target):
    """An adapter folder of mlx-lm, with the base in its format if wanted."""

    with_base: bool = False
    """Write the base as well, in the format that mlx-lm loads."""
    bits: int | None = None
    """4 or 8: that base quantised by mlx-lm (5 GB a billion weights become 0.6), adapter apart."""

    def __post_init__(self) -> None:
        if self.bits is not None and self.bits not in BITS:
            raise ConfigError(f"target.bits={self.bits}: 4 or 8, or null for the base as it is.")
        if self.bits is not None and not self.with_base:
            raise ConfigError(
                f"target.bits={self.bits} needs a base to be written: add target.with_base=true."
            )

    def check_files(self) -> None:
        if self.bits is not None:
            require_mlx()

    def check(self, adapter: Trained) -> list[str]:
        adapter.require_adapter("mlx")
        refuse_gguf(adapter, "mlx")
        made, base = in_mlx(adapter), base_in_mlx(adapter)
        mlx_config(adapter)
        if not self.with_base:
            return [*(base.notes() if base else []), *made.notes]
        if base is None:
            raise ConfigError(
                "target.with_base=true needs the base, and the adapter's is not known or not "
                "there: give model=hf model.path=DIR, or the model that it was trained on."
            )
        base.check(self.bits)
        return list(made.notes)

    def write(self, adapter: Trained, folder: Path) -> None:
        save_tensors(in_mlx(adapter).state, folder / WEIGHTS, library="mlx")
        write_config(folder / CONFIG, mlx_config(adapter))
        if self.with_base and (base := base_in_mlx(adapter)):
            base.write(folder / BASE, self.bits)
            _write_tokenizer(adapter, folder / BASE)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        count = compare_file(folder / WEIGHTS, in_mlx(adapter).state)
        facts = [f"{count} tensors read back equal"]
        base = base_in_mlx(adapter) if self.with_base else None
        return facts + (base.verify(folder / BASE) if base else [])

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        from importlib.util import find_spec

        base = adapter.on_base.model if adapter.on_base else None
        if not adapter.for_transformers or not isinstance(base, HFModel):
            return NotHere("its base is no folder of safetensors that mlx-lm loads")
        if stored := adapter.stored or base.storage.title:
            return NotHere(f"its base is stored in {stored}, which mlx-lm is not given here")
        if find_spec("mlx_lm") is None:
            return NotHere("mlx-lm is not installed: pip install mlx-lm")
        model = folder / BASE if self.with_base else base.folder()
        return MLXRuntime(model, folder, trust=base.trust_remote_code)

    def bounds(self, folder: Path) -> Bounds:
        if self.bits is None:
            return Bounds(kl=MOST_KL)
        least, kl = LOSSES[self.bits]
        return Bounds(least, kl, f"storing the base in {self.bits} bits")

    def cure(self) -> str:
        if self.with_base:
            return ""
        return (
            "target.with_base=true writes a base that mlx-lm reads as it was trained, with the "
            "tokenizer and template of training."
        )


def _write_tokenizer(adapter: Trained, base: Path) -> None:
    """Give a base the tokenizer and template of training, where they are others than its own."""
    trained = adapter.on_base
    if trained is None or not adapter.for_transformers:
        return
    tokenizer = trained.load_tokenizer()
    try:
        own = load_tokenizer(base).fingerprint
    except ModelError:  # no template, for one
        own = ""
    if own != tokenizer.fingerprint:
        tokenizer.save(base)


def load_adapter(model: Any, folder: str | Path) -> Any:
    """Put an exported adapter on a model of mlx-lm, as its `load_adapters` does; returns the model.

    Unlike that, it takes the lists of matrices that a fused projection has. Raises ModelError when
    a tensor has no place in the model or another shape.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers

    config = read_json(Path(folder) / CONFIG)
    dora = config["fine_tune_type"] == "dora"
    layers, parameters = config["num_layers"], config["lora_parameters"]
    linear_to_lora_layers(model, layers, parameters, use_dora=dora)
    weights = mx.load(str(Path(folder) / WEIGHTS))
    places = dict(tree_flatten(model.parameters()))
    wrong = [n for n, w in weights.items() if n not in places or places[n].shape != w.shape]
    if wrong:
        raise ModelError(f"{folder} does not fit this model: {', '.join(sorted(wrong)[:3])}.")
    model.load_weights(list(weights.items()), strict=False)
    model.eval()
    return model


def mlx_config(adapter: Trained) -> dict[str, Any]:
    """What `adapter_config.json` holds. Raises ModelError for what mlx-lm cannot express."""
    return {
        "fine_tune_type": "dora" if adapter.config.get("use_dora") else "lora",
        "model": str(adapter.base or adapter.config.get("base_model_name_or_path") or ""),
        "num_layers": ALL_LAYERS,
        "lora_parameters": {
            "rank": adapter.rank,
            "scale": adapter.scale,
            "dropout": 0.0,
            "keys": sorted(in_mlx(adapter).keys),
        },
    }
