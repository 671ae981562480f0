"""`target=gguf-lora`: an adapter that llama.cpp puts onto its base's own GGUF file.

    adapter.gguf    blk.N.attn_q.weight.lora_a (rank, in), ....lora_b (out, rank), in fp32
    base.gguf       the base alone, with target.base=f16, where it is a folder
    chat_template.jinja   that of training, where the base's own GGUF file has another or none

llama.cpp multiplies B A by alpha / rank, with one alpha for all and the rank of each tensor: rsLoRA
and alphas of single modules are put into that alpha, or into B. Nothing of the base is rounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError, listed, require_choice, require_range
from graftlab.exports.gguf.target import CHOICES, LOSSES
from graftlab.exports.parity.spec import Bounds
from graftlab.exports.runtimes.base import NotHere
from graftlab.exports.runtimes.llama_cpp import llama_cpp
from graftlab.exports.source import Trained
from graftlab.exports.target import Target, compare
from graftlab.files.checksums import write_checksums
from graftlab.registry import choice

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.changes import Change, LowRank
    from graftlab.exports.gguf.draft import Draft
    from graftlab.exports.gguf.merging import Merged
    from graftlab.exports.runtimes.base import Runtime

FILE, BASE, CHAT = "adapter.gguf", "base.gguf", "chat_template.jinja"
ALPHA = "adapter.lora.alpha"


@dataclass(frozen=True, slots=True)
class Written:
    """An adapter as its file holds it."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    """By the names in the file, in fp32."""
    products: Mapping[str, tuple[str, LowRank]]
    """Name of a matrix in the file -> in transformers, and what is added to it."""
    draft: Draft
    """The base alone."""


@choice("gguf-lora")
@dataclass(kw_only=True, slots=True)
class GGUFLora(Target):
    """An adapter beside its base, for llama.cpp's --lora."""

    strength: float = 1.0
    """How much of the adapter: 1 as trained, 0.7 softer; --lora-scaled multiplies it further."""
    base: str | None = None
    """Write the base too, as base.gguf of this type (the choices of target.quant): f16, say."""

    def __post_init__(self) -> None:
        require_range("target.strength", self.strength, above=0)
        if self.base is not None:
            require_choice("target.base", self.base, CHOICES)

    def check_files(self) -> None:
        from graftlab.exports.gguf.writing import require_gguf

        require_gguf("gguf-lora")

    def check(self, adapter: Trained) -> list[str]:
        from graftlab.exports.gguf.quantising import require_quantiser

        found = self._written(adapter, "adapter")
        if self.base is not None:
            require_quantiser(found.draft.kinds)
        return [*found.draft.notes, f"llama.cpp takes it so: {self._line(adapter)}"]

    def write(self, adapter: Trained, folder: Path) -> None:
        from graftlab.exports.gguf.program import write_draft
        from graftlab.exports.gguf.writing import Entry, write_gguf

        found = self._written(adapter, folder.name)
        entries = {name: Entry("F32", tuple(t.shape)) for name, t in found.tensors.items()}
        arrays = (tensor.numpy() for tensor in found.tensors.values())
        write_gguf(folder / FILE, found.metadata, entries, arrays)
        if self.base is not None:
            write_draft(found.draft, folder / BASE)
        if (template := _other_template(adapter)) is not None:
            (folder / CHAT).write_text(template, encoding="utf-8")
        write_checksums(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        from graftlab.exports.gguf.checking import compare_texts, compare_weights

        found = self._written(adapter, folder.name)
        facts = [_compared(found, folder / FILE)]
        if self.base is not None:
            base = folder / BASE
            facts += [
                f"{BASE}: {said(found.draft, base)}" for said in (compare_weights, compare_texts)
            ]
        return facts

    @property
    def scale(self) -> float:
        return self.strength

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        from graftlab.exports.plain_base import gguf_file

        base = gguf_file(adapter) or (folder / BASE if self.base is not None else None)
        if base is None:
            return NotHere("no GGUF file of its base is here: target.base=f16 writes one")
        template = folder / CHAT
        return llama_cpp(base, folder / FILE, template if template.exists() else None)

    def bounds(self, folder: Path) -> Bounds:
        """llama.cpp rounds what is multiplied with blocks to 8 bits, and the base may have some."""
        if self.base is None:
            return Bounds(0.95, 0.03, "llama.cpp's rounding beside blocks")
        least, kl = LOSSES[self.base]
        return Bounds(least, kl, f"rounding the base to {self.base}")

    def cure(self) -> str:
        return "" if self.base in (None, "f16", "f32") else "target.base=f16 rounds the base less."

    def _line(self, adapter: Trained) -> str:
        """What starts llama.cpp with it."""
        from graftlab.exports.plain_base import gguf_file

        file = gguf_file(adapter)
        own = BASE if self.base else "GGUF-OF-ITS-BASE (target.base=f16 writes one)"
        told = "" if _other_template(adapter) is None else f" --jinja --chat-template-file {CHAT}"
        return f"llama-server --model {file.name if file else own} --lora {FILE}{told}"

    def _written(self, adapter: Trained, name: str) -> Written:
        """What the file holds. Raises ModelError for all that the format has no place for."""
        from graftlab.exports.gguf.draft import draft
        from graftlab.exports.gguf.merging import merged

        model = merged(adapter, self.strength, target="gguf-lora")
        products = _products(adapter, model)
        alone = draft(replace(model, changes={}, unties=False), self.base or "f32", name=name)
        # The alpha that most matrices have: what others lack is put into their B.
        alphas = [change.scale * len(change.lora_a) for change in products.values()]
        alpha = Counter(alphas).most_common(1)[0][0]
        tensors = {}
        for parameter, change in products.items():
            lora_b = change.lora_b.float() * (change.scale * len(change.lora_a) / alpha)
            place = alone.names[parameter]
            tensors[f"{place}.lora_a"] = change.lora_a.float().contiguous()
            tensors[f"{place}.lora_b"] = alone.placed(parameter, lora_b).contiguous()
        metadata = {
            "general.architecture": alone.header.architecture,
            "general.type": "adapter",
            "general.name": name,
            "adapter.type": "lora",
            ALPHA: alpha * self.strength,
        }
        named = {
            alone.names[parameter]: (parameter, change) for parameter, change in products.items()
        }
        return Written(metadata, tensors, named, alone)


def _other_template(adapter: Trained) -> str | None:
    """The chat template of training, where the GGUF file it was trained on has not that one."""
    from graftlab.exports.plain_base import gguf_file
    from graftlab.models.gguf.file import read_gguf
    from graftlab.models.gguf.vocabulary import TEMPLATE

    if (file := gguf_file(adapter)) is None or adapter.on_base is None:
        return None
    template = adapter.on_base.load_tokenizer().template
    return template if read_gguf(file).metadata.get(TEMPLATE) != template else None


def _products(adapter: Trained, model: Merged) -> dict[str, LowRank]:
    """Parameter -> LoRA's update of it. Raises ModelError for all that is no plain LoRA."""
    from graftlab.exports.changes import LowRank

    if model.coded:
        raise ModelError(
            f"{adapter.path} was trained on {model.base.name} stored in codes of few bits, which "
            "no GGUF file holds: on others it says something else. target=gguf merges it into "
            "what those codes say."
        )
    refused = sorted({_kind(change) for change in model.changes.values()} - {""})
    if model.unties:
        refused.append("LoRA on a head that is tied to the embedding")
    if refused or not model.changes:
        raise ModelError(
            f"{adapter.path}: llama.cpp has no place beside a base for "
            f"{listed(refused, 4) or 'an adapter without LoRA'}. target=gguf makes one model of "
            "both."
        )
    return {n: change for n, change in model.changes.items() if isinstance(change, LowRank)}


def _kind(change: Change) -> str:
    """What a change is that llama.cpp does not know; '' for LoRA."""
    from graftlab.exports.changes import LowRank, Replaced, Rows

    if isinstance(change, LowRank):
        return "DoRA" if change.magnitude is not None else ""
    if isinstance(change, Replaced):
        return "modules trained in full"
    return "trained tokens" if isinstance(change, Rows) else "biases"


def _compared(found: Written, path: Path) -> str:
    """What is said of the file. Raises ModelError where it adds something else to the base."""
    import torch

    from graftlab.models.gguf.file import map_file, read_gguf

    file = read_gguf(path)
    if file.tensors.keys() != found.tensors.keys():
        raise ModelError(f"{path.name} holds other tensors than were written.")
    data = torch.from_numpy(map_file(path))
    read = {
        name: data[entry.offset : entry.offset + entry.num_bytes]
        .view(torch.float32)
        .view(entry.shape)
        for name, entry in file.tensors.items()
    }

    def pairs() -> Iterator[tuple[str, Tensor, Tensor]]:
        yield from ((name, read[name], wanted) for name, wanted in found.tensors.items())

    count = compare(pairs(), path.parent)
    alpha = file.metadata[ALPHA]
    for place, (parameter, change) in found.products.items():
        lora_a, lora_b = read[f"{place}.lora_a"], read[f"{place}.lora_b"]
        added = lora_b @ lora_a * (alpha / len(lora_a))  # as llama.cpp does
        wanted = change.apply(torch.zeros(added.shape), torch.float32)
        wanted = found.draft.placed(parameter, wanted)
        if not torch.allclose(added, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max())):
            raise ModelError(
                f"{path.name}: {place} would get another update than training's. This is a "
                "mistake of graftlab; nothing was kept."
            )
    ranks = sorted({len(change.lora_a) for _, change in found.products.values()})
    return (
        f"{count} tensors read back equal; with alpha {alpha:g} and rank "
        f"{', '.join(map(str, ranks))} they add to {len(found.products)} matrices what training did"
    )
