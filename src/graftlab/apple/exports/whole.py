"""A whole model to export: a folder such as a draft's, or an adapter merged into its base.

What a trace cannot see is put into operations it can: masks and positions of transformers, and the
8-bit keys and values of tamm.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graftlab.errors import ModelError
from graftlab.models.empty import empty_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from graftlab.exports.gguf.merging import Merged

MASKED = -1e4
"""Added to scores of later positions: far below any score, and held by half precision."""


class Logits(nn.Module):
    """ids (1, T) -> logits (1, T, V) of a causal model, in operations that can be traced."""

    def __init__(self, model: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.options = dict(options)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(ids, **self.options).logits
        return logits


class Rounding(nn.Module):
    """tamm's 8-bit keys and values in plain operations: its own class hides them from a trace."""

    scale: Tensor

    def __init__(self, quantiser: Any) -> None:
        super().__init__()
        scale, _ = quantiser.activation_post_process.calculate_qparams()
        self.register_buffer("scale", scale.clone())

    def forward(self, values: Tensor) -> Tensor:
        return (values / self.scale).round().clamp(-128, 127) * self.scale


def load_whole(folder: Path, *, length: int) -> Logits:
    """The model in `folder` for rows of `length` tokens, fp32 on the CPU, in eval mode.

    Raises ModelError for a folder that cannot be loaded.
    """
    if is_hugging_face(folder):
        return plain(load_folder(folder), length=length).eval()
    from tamm.ao.layers.fake_quantize import FakeQuantize

    from graftlab.apple.attention import swap_modules
    from graftlab.apple.base import load_model
    from graftlab.apple.exports.plain import PlainAFM
    from graftlab.apple.files import find_assets

    model = load_model(find_assets(folder), dtype=torch.float32, device=torch.device("cpu"))
    swap_modules(model, FakeQuantize, Rounding)
    return Logits(PlainAFM(model), {}).eval()


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder is a model of transformers."""
    return (folder / "config.json").is_file()


def load_folder(folder: Path) -> PreTrainedModel:
    """The model of transformers in `folder`, fp32 on the CPU. Raises ModelError."""
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=torch.float32,
            trust_remote_code=False,  # else transformers asks on the terminal
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder} is not a model that transformers loads: {error}") from error
    return model.eval()


def load_merged(merged: Merged) -> PreTrainedModel:
    """Base and adapter as one model of transformers, fp32 on the CPU.

    Raises ModelError naming a weight that half precision cannot hold.
    """
    model = empty_model(
        merged.base.folder, dtype=torch.float32, device=torch.device("cpu"), own=True
    )
    for name in merged.shapes:
        tensor = merged.tensor(name)
        if not tensor.half().isfinite().all():
            raise ModelError(
                f"{name} has values above 65,504, which fp16 cannot hold, and target=mlpackage "
                "computes in it: target=gguf target.quant=bf16 and target=merged take it."
            )
        place, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(place), leaf, nn.Parameter(tensor, requires_grad=False))
    if not merged.unties:
        model.tie_weights()
    return model.eval()


def plain(model: PreTrainedModel, *, length: int) -> Logits:
    """A model of transformers for rows of `length` tokens, without a cache."""
    window = getattr(model.config, "sliding_window", None)
    if window and window < length:
        raise ModelError(
            f"{model.config.name_or_path}: its attention spans {window} tokens; "
            f"target.length={window} at most."
        )
    model.set_attn_implementation("eager")
    # Masks and positions are given, because those that transformers derives cannot be traced.
    options = {
        "use_cache": False,
        "attention_mask": torch.full((length, length), MASKED).triu(1)[None, None],
        "position_ids": torch.arange(length)[None],
    }
    return Logits(model, options)
