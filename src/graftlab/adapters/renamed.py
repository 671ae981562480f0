"""Names that PEFT takes for a mixture's experts, whatever they name, since those are fused.

    lora.targets   gate_proj, up_proj, down_proj      of a shared expert, or of a dense layer
    PEFT adapts    experts.gate_up_proj, .down_proj   all experts of all layers, and not those

It does so when an adapter is made and when one is loaded (0.21), so that an adapter on the modules
themselves could not be written down: they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
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
