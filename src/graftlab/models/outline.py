"""A Hugging Face model without its weights: its modules, and how its files name their tensors.

    model.safetensors            backbone.layers.0.mixer.q_proj.weight
    the model as it is loaded    model.layers.0.mixer.q_proj.weight

transformers renames tensors on loading, and fuses, splits or turns round others (its weight
conversion): what was fused has no place in the files of its own.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from graftlab.models.quantization.packed import weights_in

if TYPE_CHECKING:
    from graftlab.models.gguf import GGUFModel
    from graftlab.models.hf import HFModel
    from graftlab.models.hf_base import HFBase


def outline(spec: HFModel | GGUFModel) -> HFBase:
    """The model of `spec` on the meta device, where tensors have shapes and take no memory.

    Raises ModelError where it cannot be trained, or needs code that nobody has trusted.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from graftlab.models.hf_base import HFBase

    spec.check()
    folder, trusted = spec.folder(), getattr(spec, "trust_remote_code", False)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trusted)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    return HFBase(
        model, name=spec.name, source=str(folder), folder=folder, fingerprint=spec.fingerprint()
    )


def stored_names(base: HFBase) -> dict[str, str]:
    """Name in the model -> name in its files, of tensors that are the same in both.

    Tensors that transformers makes of several, or of other shapes, are left out.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    steps = get_model_conversion_mapping(base.model)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    state = base.model.state_dict()
    found = {}
    for stored, tensor in weights_in(base.folder).items():
        name, converted = rename_source_key(
            stored, renamings, converters, base.model.base_model_prefix, state
        )
        if converted is None and name in state and tuple(state[name].shape) == tensor.shape:
            found[name] = stored
    return found


def tied_names(base: HFBase) -> list[list[str]]:
    """Names of parameters that are one and the same, such as the embedding and the head."""
    groups = defaultdict(list)
    for name, parameter in base.model.named_parameters(remove_duplicate=False):
        groups[id(parameter)].append(name)
    return [names for names in groups.values() if len(names) > 1]
