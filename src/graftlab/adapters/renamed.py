"""Names that PEFT takes for others, so that an adapter on such modules could not be read back.

    lora.targets   gate_proj, up_proj, down_proj      of a shared expert, or of a dense layer
    PEFT adapts    experts.gate_up_proj, .down_proj   all experts of all layers, and not those

It does so when an adapter is made and when one is loaded (0.21). When it loads one, it also renames
weights as transformers renames those of the base, from the names of its files to those of its
modules; where the latter look like the former, they are lost. Those modules stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Where a config says that it is a mixture's."""


def names_taken_for_experts(config: Mapping[str, Any]) -> frozenset[str]:
    """Last parts of the module names that PEFT replaces for a model with this config.

    PEFT is imported only for a mixture.
    """
    if not any(config.get(key) for key in EXPERTS):
        return frozenset()
    from peft.utils import transformers_weight_conversion as conversion

    patterns = getattr(conversion, "_MODEL_TO_CONVERSION_PATTERN", {})
    tables = getattr(conversion, "_MOE_TARGET_MODULE_MAPPING", {})
    return frozenset(tables.get(patterns.get(config.get("model_type")), {}))


def names_lost_on_loading(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of the modules `names` under which PEFT would not find an adapter of its own again."""
    import torch
    from peft import LoraConfig
    from peft.utils import transformers_weight_conversion as conversion

    keys = {f"base_model.model.{name}.lora_A.weight": name for name in names}
    loaded = conversion.convert_peft_adapter_state_dict_for_transformers(
        model, LoraConfig(), dict.fromkeys(keys, torch.zeros(1, 1))
    )
    return {name for key, name in keys.items() if key not in loaded}
