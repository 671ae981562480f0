"""`target=peft`: an adapter in PEFT's format; for Apple's model under names PEFT can target.

    layers.segment_0.layer_3.attention.qkv_transform...lora_1.a_transpose   (in, rank)
    -> base_model.model.model.layers.segment_0.layer_3.attention.qkv_transform.k_proj.lora_A.weight

An adapter for a Hugging Face model is in PEFT's format already and is copied. One for Apple's model
is loaded onto `graftlab.exports.plain.PlainAFM`, whose modules have these names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.exports.layout import adapts_all, place_of
from graftlab.exports.target import Target, compare, save_tensors
from graftlab.files.checksums import write_checksums

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.source import Trained

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model.model."
"""PEFT's own prefix, and the attribute under which `PlainAFM` keeps tamm's model."""
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
OF_TAMM = frozenset({CONFIG, WEIGHTS, "run.yaml", "card.md"})
"""What in an adapter's folder speaks of tamm's format, and is not copied beside PEFT's."""


@dataclass(kw_only=True, slots=True)
class Peft(Target):
    """A folder that plain `peft` loads."""

    name: str | None = None

    def check(self, adapter: Trained) -> list[str]:
        adapter.require_adapter("peft")
        peft_state(adapter)
        if not adapter.is_afm:
            return []
        return ["load it onto graftlab.exports.plain.PlainAFM around tamm's model (docs/export.md)"]

    def write(self, adapter: Trained, folder: Path) -> None:
        left_out = OF_TAMM if adapter.is_afm else frozenset()
        for file in adapter.path.iterdir() if adapter.path.is_dir() else []:
            if file.is_file() and file.name not in left_out:
                shutil.copyfile(file, folder / file.name)
        if not (folder / WEIGHTS).is_file():  # else a folder in PEFT's format, copied as it is
            save_tensors(peft_state(adapter), folder / WEIGHTS, library="pt")
            text = json.dumps(peft_config(adapter), indent=2, sort_keys=True)
            (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
        write_checksums(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        from peft import LoraConfig, PeftConfig
        from safetensors.torch import load_file

        config = PeftConfig.from_pretrained(str(folder))
        if not isinstance(config, LoraConfig) or config.r != adapter.rank:
            raise ModelError(f"{folder.name}/{CONFIG} does not describe this adapter to PEFT.")
        found = load_file(folder / WEIGHTS)
        wanted = peft_state(adapter)
        if found.keys() != wanted.keys():
            raise ModelError(f"{folder.name}/{WEIGHTS} holds other tensors than were written.")
        count = compare(((n, found[n], t) for n, t in wanted.items()), folder)
        return [f"PEFT reads its config; {count} tensors read back equal"]


def peft_state(adapter: Trained) -> dict[str, Tensor]:
    """The weights under PEFT's names, in their own precision. Raises ModelError for others."""
    if not adapter.is_afm:
        if not any(".lora_A." in name for name in adapter.state):
            raise ModelError(f"{adapter.path} holds no LoRA weights under PEFT's names.")
        return {name: tensor.contiguous() for name, tensor in adapter.state.items()}
    return {name: t.T.contiguous() for name, t in _renamed(adapter)}


def _renamed(adapter: Trained) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in adapter.state.items():
        place = place_of(name)
        module = f"layers.segment_{place.segment}.layer_{place.layer}.{place.module}"
        if place.part is not None:
            module += f".{PROJECTIONS[place.part]}"
        yield f"{PREFIX}{module}.lora_{place.matrix.upper()}.weight", tensor


def peft_config(adapter: Trained) -> dict[str, Any]:
    """What `adapter_config.json` holds."""
    if not adapter.is_afm:
        return dict(adapter.config)
    alpha = adapter.scale * adapter.rank
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": str(adapter.base) if adapter.base else None,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": _targets(adapter),
    }


def _targets(adapter: Trained) -> list[str]:
    """Ends of module names that tell PEFT what to adapt, and match nothing else of the model."""
    modules = {name.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for name in peft_state(adapter)}
    if not adapts_all(adapter.state):
        return sorted(modules)
    # layers.segment_0.layer_3 | attention.output_transform: its last part alone is also the head's.
    return sorted({module.split(".", 3)[3] for module in modules})
