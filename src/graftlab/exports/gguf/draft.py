"""The file that is to be written, before any weight is read: its metadata, and what goes where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graftlab.exports.gguf.describing import described
from graftlab.exports.gguf.kinds import FLOATS, QUANTS, entries
from graftlab.exports.gguf.merging import Merged
from graftlab.exports.gguf.quantising import quantised
from graftlab.exports.gguf.vocabulary import endings, vocabulary
from graftlab.exports.gguf.writing import Entry
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.file import GGUFFile, map_file
from graftlab.models.gguf.rope import USED
from graftlab.models.gguf.vocabulary import TEMPLATE
from graftlab.models.gguf.weights import file_name, in_file

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from graftlab.exports.gguf.importance import Importance

NOT_KEPT = ("general.file_type", "general.quantization_version", "quantize.", "split.")
"""What a base's file says of its own storage."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One file; tensors are called by transformers' names, but for those of `entries`."""

    model: Merged
    quant: str
    """What its matrices were asked to be: a choice of `target.quant`."""
    header: GGUFFile
    metadata: Mapping[str, Any]
    names: Mapping[str, str]
    """Name of a parameter in transformers -> in the file."""
    entries: Mapping[str, Entry]
    """By the names in the file, in its order."""
    tables: Mapping[str, np.ndarray]
    """Tensors that are no weights, by their names in the file: bytes."""
    fallen: int
    """How many matrices have another type than was asked for, as their rows fill no blocks."""
    notes: tuple[str, ...]
    importance: Importance | None = None
    """What weighs the errors of rounding."""

    def values(self, name: str) -> Tensor:
        """A parameter as the file holds it, in fp32: not rounded yet."""
        return self.placed(name, self.model.tensor(name))

    def placed(self, name: str, values: Tensor) -> Tensor:
        """Values of a parameter, or what is added to them, in the order of the file's rows."""
        return in_file(self.header, name, values)

    def blocks(self, name: str) -> np.ndarray:
        """The bytes of a parameter. Raises ModelError where its values do not fit."""
        place = self.names[name]
        weights = self.importance.squares.get(place) if self.importance else None
        return quantised(name, self.values(name), self.entries[place].kind, weights)

    def arrays(self) -> Iterator[np.ndarray]:
        """The bytes of all tensors, in the order of `entries`, one in memory at a time."""
        parameters = {theirs: ours for ours, theirs in self.names.items()}
        for name in self.entries:
            yield self.tables[name] if name in self.tables else self.blocks(parameters[name])

    @property
    def kinds(self) -> set[str]:
        """The types that its tensors have."""
        return {entry.kind for entry in self.entries.values()}

    def weighed(self, importance: Importance) -> Draft:
        """The same file, its values rounded where `importance` matters least."""
        metadata = {**self.metadata, **importance.metadata()}
        return replace(self, importance=importance, metadata=metadata)


def draft(model: Merged, quant: str, *, name: str) -> Draft:
    """The file of `model` with matrices of the type `quant`; `name` is what it calls itself.

    Raises ModelError for what the format has no place for.
    """
    base, tokenizer = model.trained.model, model.trained.load_tokenizer()
    rows = model.shapes["model.embed_tokens.weight"][0]
    notes: tuple[str, ...] = ()
    if isinstance(base, GGUFModel):
        header = base.file()
        told = {k: v for k, v in header.metadata.items() if not k.startswith(NOT_KEPT)}
        eos = told.get("tokenizer.ggml.eos_token_id")
        told |= {**endings(tokenizer, eos), TEMPLATE: tokenizer.template}
        kept = {n: t for n, t in header.tensors.items() if n in USED}
        tables = {n: map_file(t.file)[t.offset : t.offset + t.num_bytes] for n, t in kept.items()}
        sizes = {n: Entry(t.dtype, t.shape) for n, t in kept.items()}
    else:
        made = described(model.base.config, model.shapes, name=base.name)
        header, notes = made.header, made.notes
        told = {**made.metadata, **vocabulary(tokenizer, rows=rows, name=name)}
        tables = {n: values.view("u1") for n, values in made.tensors.items()}
        sizes = {n: Entry("F32", values.shape) for n, values in made.tensors.items()}
    names = {parameter: file_name(header, parameter) for parameter in model.shapes}
    shapes = {theirs: model.shapes[ours] for ours, theirs in names.items()}
    placed, fallen = entries(quant, header, shapes)
    told["general.file_type"] = QUANTS[quant].number
    if {entry.kind for entry in placed.values()} - set(FLOATS):
        told["general.quantization_version"] = 2
    return Draft(model, quant, header, told, names, {**sizes, **placed}, tables, fallen, notes)
