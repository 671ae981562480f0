"""A model of transformers from a folder that belongs together, with nothing left to chance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from graftlab.errors import ModelError
from graftlab.models.headers import weights_in_layers
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.packing.attention import ATTENTION, OWN, register

if TYPE_CHECKING:
    from transformers import PreTrainedModel


FAILURES = (
    *(ValueError, OSError, KeyError, ImportError, SafetensorError, StrictDataclassError),
    *(ArithmeticError, AttributeError, RuntimeError, TypeError),
)
"""What transformers and its models raise of a config.json that makes no model."""
NEEDED = ("hidden_size", "num_hidden_layers", "vocab_size")


def from_pretrained(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool,
    own: bool,
    quantization: Quantization,
) -> PreTrainedModel:
    """The model in `folder`, with packed attention, or with `own` in the one it has.

    Raises ModelError where files, weights and architecture do not fit each other.
    """
    register()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    # On the CPU nothing is said: a device map would only add accelerate's hooks.
    place = {} if device.type == "cpu" else {"device_map": {"": device}}
    stored = {}
    if isinstance(quantization, Codes):
        from graftlab.models.quantization.loading import CodesConfig

        stored["quantization_config"] = CodesConfig(quantization, dtype, device)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=None if own else ATTENTION,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            **place,
            **stored,
        )
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        if isinstance(error, KeyError) and error.args == (ATTENTION,):
            raise ModelError(_refusal(folder)) from error
        hint = "" if trust_remote_code else " (model.trust_remote_code is off)"
        reason = " ".join(str(error).split())[:500]
        raise ModelError(f"{folder} cannot be loaded{hint}: {reason}") from error
    absent = sorted(report["missing_keys"])
    if absent:
        raise ModelError(
            f"{folder} lacks {len(absent)} tensors of a {type(model).__name__}, which would start "
            f"random: {', '.join(absent[:3])}. Is it an adapter or an encoder?"
        )
    if left_out := weights_in_layers(report["unexpected_keys"]):
        raise ModelError(
            f"{folder} holds {len(left_out)} tensors that a {type(model).__name__} has no place "
            f"for and would do without: {', '.join(left_out[:3])}. Is config.json another model's?"
        )
    if other := sorted(report["mismatched_keys"]):
        name, found, wanted = other[0]
        raise ModelError(
            f"{folder}: config.json asks for other shapes than the weights have, in {len(other)} "
            f"tensors: {name} is {tuple(found)}, not {tuple(wanted)}."
        )
    config = model.config.get_text_config()
    if unsaid := [name for name in NEEDED if not hasattr(config, name)]:
        raise ModelError(
            f"{folder}: a {type(model).__name__} is no stack of decoder layers over tokens: its "
            f"config has no {', '.join(unsaid)}."
        )
    if own:
        model.set_attn_implementation(stock_attention(model))
    return model


def require_replaceable(model: Any, folder: Path) -> None:
    """Raise ModelError where the model's code computes attention itself, whatever it is told."""
    if not model._can_set_attn_implementation():
        raise ModelError(_refusal(folder))


def _refusal(folder: Path) -> str:
    return f"{folder} takes no attention but its own. {OWN}"


def stock_attention(model: Any) -> str:
    """The fastest of transformers' attentions that computes this model as it is."""
    # SDPA drops a softcap without a word.
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return "eager" if capped or not model._supports_sdpa else "sdpa"
