"""`target=merged`: base and adapter as one model, a folder that transformers loads.

    config.json               the base's; a tied head that was trained is untied
    model*.safetensors        in the files of the base, one tensor in memory at a time
    tokenizer*, *.jinja       those that the adapter was trained with
    generation_config.json    the base's, with every token at which a reply ends

Sums are in fp32 and rounded once. What rounding costs is measured: bf16 holds 8 bits of a number,
fp16 11, at up to 65,504.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError, require_choice, require_range
from graftlab.exports.generation_config import FILE as GENERATION
from graftlab.exports.generation_config import generation_config
from graftlab.exports.plain_base import PlainBase, require_plain_base
from graftlab.exports.runtimes.plain import PlainRuntime, rounding
from graftlab.exports.shards import NAMES, Entry, write_index, write_shard
from graftlab.exports.source import Trained
from graftlab.exports.target import Target, compare, write_config
from graftlab.files.checksums import write_checksums
from graftlab.models.weights import file_tensors, read_json, torch_dtype
from graftlab.registry import choice

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.merge import Merge
    from graftlab.exports.parity.spec import Bounds
    from graftlab.exports.runtimes.base import NotHere, Runtime

CONFIG = "config.json"
DTYPES = ("auto", *NAMES)
BESIDE = ("*.py", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
"""What else of the base's folder belongs to its weights: code, and the terms of their use."""


@choice("merged")
@dataclass(kw_only=True, slots=True)
class Merged(Target):
    """A model folder of transformers, the adapter in its weights."""

    dtype: str = "auto"
    """auto (as the base), fp32, bf16 or fp16; fp16 is refused where a value does not fit."""
    strength: float = 1.0
    """How much of the adapter: 1 as trained, 0.7 softer."""

    def __post_init__(self) -> None:
        require_choice("target.dtype", self.dtype, DTYPES)
        require_range("target.strength", self.strength, above=0)

    def check(self, adapter: Trained) -> list[str]:
        if not self._merge(adapter).unties:
            return []
        return ["head and embedding, one tensor in the base, are two: only one has the adapter"]

    def write(self, adapter: Trained, folder: Path) -> None:
        merge, tokenizer = self._merge(adapter), self._base(adapter).trained.load_tokenizer()
        shards = merge.shards(self.dtype)
        for name, entries in shards.items():
            tensors = (tensor for _, tensor in merge.tensors(name, entries))
            write_shard(folder / name, entries, tensors)
        write_index(merge.folder, folder, shards)
        write_config(folder / CONFIG, self._config(merge))
        tokenizer.save(folder)
        write_config(folder / GENERATION, generation_config(merge.folder, tokenizer))
        for file in (file for pattern in BESIDE for file in merge.folder.glob(pattern)):
            if file.is_file():  # LICENSES may be a folder
                shutil.copyfile(file, folder / file.name)
        write_checksums(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        merge, count = self._merge(adapter), 0
        for name, entries in merge.shards(self.dtype).items():
            if file_tensors(folder / name).keys() != entries.keys():
                raise ModelError(f"{folder.name}/{name} holds other tensors than were written.")
            count += compare(_read_back(merge, folder / name, entries), folder)
        return [f"{len(merge.changes)} of {count} tensors changed; all {count} read back equal"]

    @property
    def scale(self) -> float:
        return self.strength

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        base = self._base(adapter).model
        return PlainRuntime(folder, folder, base=base.folder(), trust=base.trust_remote_code)

    def bounds(self, folder: Path) -> Bounds:
        return rounding(folder)

    def diagnose(self, adapter: Trained, folder: Path) -> list[str]:
        from graftlab.exports.parity.tensors import told_by_tensors

        return told_by_tensors(self._merge(adapter), self.dtype, folder)

    def cure(self) -> str:
        return "target.dtype=fp32 tells whether it is the rounding."

    def _base(self, adapter: Trained) -> PlainBase:
        return require_plain_base(adapter, "merged")

    def _merge(self, adapter: Trained) -> Merge:
        from graftlab.exports.merge import plan_merge

        base = self._base(adapter)
        return plan_merge(base.model, base.adapter, adapter.state, strength=self.strength)

    def _config(self, merge: Merge) -> dict[str, Any]:
        """The base's config.json, of what is written."""
        config = read_json(merge.folder / CONFIG)
        for place in (config, config.get("text_config") or {}):
            if merge.unties and (place is config or "tie_word_embeddings" in place):
                place["tie_word_embeddings"] = False
            if self.dtype != "auto":
                place.pop("torch_dtype", None)  # as it was called until transformers 4
                place["dtype"] = str(torch_dtype(NAMES[self.dtype])).removeprefix("torch.")
        return config


def _read_back(
    merge: Merge, file: Path, entries: Mapping[str, Entry]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, as it was read back, as it is to be) of every tensor in a file."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as written:
        for name, wanted in merge.tensors(file.name, entries):
            yield name, written.get_tensor(name), wanted
