"""`target=peft`: an adapter in PEFT's format.

One for a Hugging Face model is in that format already and is copied; what others become, `in_peft`
is told by the class of the adapter.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.exports.plain_base import gguf_file, runtime_on_base
from graftlab.exports.runtimes.plain import rounding
from graftlab.exports.source import Trained
from graftlab.exports.target import Target, compare_file, save_tensors, write_config
from graftlab.files.checksums import write_checksums
from graftlab.registry import choice
from graftlab.text.tokenizer import holds_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.parity.spec import Bounds
    from graftlab.exports.runtimes.base import NotHere, Runtime

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class InPeft:
    """An adapter in PEFT's format."""

    state: Mapping[str, Tensor]
    """The weights under PEFT's names, in their own precision."""
    config: Mapping[str, Any]
    """What `adapter_config.json` holds."""
    left_out: frozenset[str] = frozenset()
    """Files of the adapter's folder that are of another format, and are not copied."""
    notes: tuple[str, ...] = ()
    """What is to be known before it is loaded."""


@singledispatch
def in_peft(adapter: Trained) -> InPeft:
    """What an adapter is in PEFT's format. Raises ModelError for what is no LoRA."""
    if not any(".lora_A." in name for name in adapter.state):
        raise ModelError(f"{adapter.path} holds no LoRA weights under PEFT's names.")
    return InPeft({n: tensor.contiguous() for n, tensor in adapter.state.items()}, adapter.config)


@choice("peft")
@dataclass(kw_only=True, slots=True)
class Peft(Target):
    """A folder that plain `peft` loads."""

    def check(self, adapter: Trained) -> list[str]:
        adapter.require_adapter("peft")
        notes = list(in_peft(adapter).notes)
        if (file := gguf_file(adapter)) is not None:
            notes.append(
                f"trained on {file.name}, a GGUF file: it is made for those weights, and PEFT puts "
                "it on a model that is loaded, such as from_pretrained(DIR, gguf_file=NAME)"
            )
        return notes

    def write(self, adapter: Trained, folder: Path) -> None:
        made = in_peft(adapter)
        for file in adapter.path.iterdir() if adapter.path.is_dir() else []:
            if file.is_file() and file.name not in made.left_out:
                shutil.copyfile(file, folder / file.name)
        if not (folder / WEIGHTS).is_file():  # else a folder in PEFT's format, copied as it is
            save_tensors(made.state, folder / WEIGHTS, library="pt")
            write_config(folder / CONFIG, made.config)
        write_checksums(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        from peft import LoraConfig, PeftConfig

        config = PeftConfig.from_pretrained(str(folder))
        # With ranks of their own for some modules, each tensor says its rank.
        one_rank = isinstance(config, LoraConfig) and not config.rank_pattern
        if not isinstance(config, LoraConfig) or (one_rank and config.r != adapter.rank):
            raise ModelError(f"{folder.name}/{CONFIG} does not describe this adapter to PEFT.")
        count = compare_file(folder / WEIGHTS, in_peft(adapter).state)
        return [f"PEFT reads its config; {count} tensors read back equal"]

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        own = folder if holds_tokenizer(folder) else None
        base = adapter.base
        return runtime_on_base(adapter, folder, tokenizer=own or base or folder)

    def bounds(self, folder: Path) -> Bounds:
        return rounding(folder)
