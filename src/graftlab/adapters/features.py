"""Which of PEFT's features an adapter may have, told from its config and its tensors' names.

PEFT adds features faster than anybody can follow, and some change what a tensor means. So there is
a list of those that are known to work, and everything else is refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graftlab.adapters.lora import REWRITING_INITS
from graftlab.errors import ModelError

PLAIN = frozenset(
    {
        *("r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "lora_bias"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out"),
        *("trainable_token_indices",),
        # What made it, which its weights show no more.
        *("base_model_name_or_path", "revision", "peft_version", "auto_mapping", "inference_mode"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config"),
        # Sizes that only say something beside a feature of their own, which is refused.
        *("qalora_group_size", "megatron_core"),
        # Judged by their values below.
        *("peft_type", "task_type", "bias", "init_lora_weights"),
    }
)
"""Fields of PEFT's LoraConfig with which an adapter is loaded as PEFT loads it."""
UNSAID = ("lora_bias", "exclude_modules", "layers_pattern")
"""Those of them that no key of `lora` can say, so that training cannot go on with them."""


def refuse_features(config: Mapping[str, Any], place: Path, *, to_train: bool = False) -> None:
    """Raise ModelError naming what an adapter in PEFT's format has that is not supported.

    `to_train`: it is to be continued, by a run whose configuration must be able to say it.
    """
    kind = str(config.get("peft_type"))
    if kind != "LORA":
        raise ModelError(f"{place} is an adapter of PEFT's {kind}; only LORA is supported.")
    if (task := config.get("task_type")) not in (None, "CAUSAL_LM"):
        raise ModelError(f"{place} was trained for {task}, and the bases here are CAUSAL_LM.")
    init = str(config.get("init_lora_weights")).split("_niter_")[0].lower()
    if init in REWRITING_INITS:
        raise ModelError(
            f"{place} was initialised with {config['init_lora_weights']}: it belongs to a "
            "rewritten base. Convert it to plain LoRA with PEFT first."
        )
    found = [key for key, value in config.items() if value and key not in PLAIN]
    if config.get("bias", "none") != "none":
        found.append(f"bias={config['bias']}")
    if to_train:
        found += [key for key in UNSAID if config.get(key)]
    if found:
        what = "continued" if to_train else "loaded"
        raise ModelError(
            f"{place} cannot be {what}: PEFT's {', '.join(sorted(found))} "
            f"{'is' if len(found) == 1 else 'are'} not supported here."
        )


def refuse_tensors(names: Iterable[str], place: Path) -> None:
    """Raise ModelError for an adapter with LoRA on an embedding, which `modules_to_save` trains."""
    embedded = next((name for name in names if ".lora_embedding_" in name), None)
    if embedded is not None:
        module = embedded.partition(".lora_embedding_")[0].removeprefix("base_model.model.")
        raise ModelError(
            f"{place} has LoRA on the embedding {module}, which is not supported: train that in "
            f"full instead (lora.modules_to_save=[{module.rpartition('.')[2]}])."
        )
