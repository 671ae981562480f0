"""Which tensors of a base an adapter changes, told without reading either.

    adapter                                      base's file
    ...layers.0.mlp.up_proj.lora_A.weight   ->   model.layers.0.mlp.up_proj.weight
    ...layers.0.mlp.up_proj.lora_B.weight   ->   (the same)
    ...lm_head.weight, trained in full      ->   lm_head.weight, which a tied head does not have yet

What each tensor means is PEFT's word: the adapter is placed on the base's outline (`outline.py`),
so patterns of ranks and alphas, layers left out and rows of tokens are read by PEFT itself. Every
tensor of the adapter must have been used, and every changed one be in the files as it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from graftlab.adapters.linear import NAME
from graftlab.adapters.peft import place_adapter
from graftlab.adapters.peft_adapter import PREFIX, PeftAdapter
from graftlab.errors import ModelError, listed
from graftlab.exports.changes import Change, LowRank, Replaced, Rows, Shifted
from graftlab.exports.shards import FLOATS, NAMES, Entry
from graftlab.models.finite import describe_nonfinite
from graftlab.models.outline import outline, stored_names, tied_names
from graftlab.models.weights import (
    StoredTensor,
    misfits,
    read_tensor,
    stored_tensors,
    torch_dtype,
)

if TYPE_CHECKING:
    from graftlab.adapters.store import AdapterSource
    from graftlab.models.hf import HFModel
    from graftlab.models.hf_base import HFBase


@dataclass(frozen=True, slots=True)
class Merge:
    """A base's tensors, by their names in its files, and what becomes of them."""

    folder: Path
    """Of the base."""
    stored: Mapping[str, StoredTensor]
    changes: Mapping[str, Change]
    """Those that are changed; the others stay."""
    untied: Mapping[str, str]
    """Further tensors, which the base shares with others: new name -> the stored one it is of."""
    unties: bool
    """Whether embedding and head, one in the base, are two afterwards."""

    def shards(self, dtype: str) -> dict[str, dict[str, Entry]]:
        """What each file is to hold: the base's tensors in their order, then the new ones.

        `dtype` is a key of `NAMES`, or auto; what are no floating-point numbers stay as they are.
        """
        shards: dict[str, dict[str, Entry]] = {}
        new = {name: self.stored[old] for name, old in self.untied.items()}
        for name, stored in [*self.stored.items(), *new.items()]:
            kept = dtype == "auto" or stored.dtype not in FLOATS
            entry = Entry(stored.dtype if kept else NAMES[dtype], stored.shape)
            shards.setdefault(stored.file.name, {})[name] = entry
        return shards

    def tensors(self, file: str, entries: Mapping[str, Entry]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of one file as they are to be, one in memory after the other.

        Raises ModelError naming one with values that do not fit its type.
        """
        with safe_open(self.folder / file, framework="pt") as stored:
            for name, entry in entries.items():
                tensor = stored.get_tensor(self.untied.get(name, name))
                yield name, self._made(name, tensor, entry)

    def _made(self, name: str, tensor: Tensor, entry: Entry) -> Tensor:
        if entry.dtype not in FLOATS:
            return tensor
        dtype, change = torch_dtype(entry.dtype), self.changes.get(name)
        if change is None and tensor.dtype == dtype:
            return tensor
        made = change.apply(tensor, dtype) if change is not None else tensor.to(dtype)
        if made.sum(dtype=torch.float32).isfinite():  # a pass over it, where looking takes three
            return made
        lost = int((~made.isfinite() & tensor.isfinite()).sum())
        if not lost:
            return made
        raise ModelError(
            f"{name}: {lost:,} values do not fit {str(dtype).removeprefix('torch.')}, which goes "
            f"up to {torch.finfo(dtype).max:,.0f}: take target.dtype=bf16 or fp32."
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What an adapter makes of a base, whose tensors are called by their names in its files."""

    changes: Mapping[str, Change]
    untied: Mapping[str, str]
    unties: bool


def plan_merge(
    spec: HFModel, source: AdapterSource, state: Mapping[str, Tensor], *, strength: float
) -> Merge:
    """What the adapter in `source`, with the weights `state`, makes of the base of `spec`.

    Raises ModelError naming what does not fit, what is left over, and what cannot be merged.
    """
    base = outline(spec)
    stored = stored_tensors(base.folder)
    plan = plan_changes(
        base,
        source,
        state,
        names=stored_names(base),
        original=lambda name: read_tensor(name, stored[name]),
        strength=strength,
    )
    return Merge(base.folder, stored, plan.changes, plan.untied, unties=plan.unties)


def plan_changes(
    base: HFBase,
    source: AdapterSource,
    state: Mapping[str, Tensor],
    *,
    names: Mapping[str, str],
    original: Callable[[str], Tensor],
    strength: float,
) -> Plan:
    """What the adapter in `source`, with the weights `state`, makes of the outline `base`.

    `names` are those of its parameters in its files, and `original` reads one of there. Raises
    ModelError naming what does not fit, what is left over, and what cannot be merged.
    """
    if (found := describe_nonfinite(state.items())) is not None:
        raise ModelError(f"{source.file} is damaged or was trained to divergence: {found}.")
    names, groups = dict(names), tied_names(base)
    adapter = place_adapter(base, source)
    shared = {n: names[held] for group in groups for held in group if held in names for n in group}
    state = _without_copies(state, adapter, shared | names, original)
    expected = {name: tuple(p.shape) for name, p in adapter.named_parameters()}
    if problems := misfits(state, expected):
        raise ModelError(
            f"{source.path} does not fit {base.name}: {listed(problems, 3, '; ')}. Every tensor "
            "of an adapter must have a place in what is merged."
        )
    changes = _Reader(adapter, state, strength).changes()
    untied = _untie(changes, groups, names)
    lost = sorted(name for name in changes if name not in names)
    if lost:
        raise ModelError(
            f"{source.path} changes {len(lost)} tensors that {base.name} computes from others in "
            f"its files when it is loaded, or that are not there ({listed(lost, 3)}): they cannot "
            "be merged one by one. target=peft keeps the adapter beside its base."
        )
    changes = {names[name]: change for name, change in changes.items()}
    return Plan(changes, untied or {}, unties=untied is not None)


class _Reader:
    """The changes that an adapter makes, by the names of the model's parameters."""

    def __init__(self, adapter: PeftAdapter, state: Mapping[str, Tensor], strength: float) -> None:
        self.adapter, self.strength = adapter, strength
        self._names = {id(p): name for name, p in adapter.named_parameters()}
        self._state = state
        self._used: set[str] = set()

    def changes(self) -> dict[str, Change]:
        """Raises ModelError where a tensor of the adapter is of a kind that is not known."""
        found: dict[str, Change] = {}
        for name, layer in self.adapter.layers.items():
            found |= self._low_rank(name, layer)
        for name, wrapper in self.adapter.saved.items():
            for leaf, parameter in wrapper.modules_to_save[NAME].named_parameters():
                trained = self._take(parameter)
                found[f"{name}.{leaf}"] = Replaced(trained=trained, strength=self.strength)
        for name, wrapper in self.adapter.tokens.items():
            found[f"{name}.weight"] = self._rows(name, wrapper.token_adapter)
        if left := sorted(self._state.keys() - self._used):
            raise ModelError(f"the adapter's {listed(left, 3)} cannot be merged.")
        return found

    def _take(self, parameter: nn.Parameter) -> Tensor:
        name = self._names[id(parameter)]
        self._used.add(name)
        return self._state[name]

    def _low_rank(self, name: str, layer: Any) -> dict[str, Change]:
        from transformers.pytorch_utils import Conv1D

        module = layer.get_base_layer()
        if not isinstance(module, nn.Linear | Conv1D):
            raise ModelError(f"LoRA on {name}, a {type(module).__name__}, cannot be merged.")
        scale, bias = layer.scaling[NAME], layer.lora_B[NAME].bias
        dora = NAME in layer.lora_magnitude_vector
        found: dict[str, Change] = {}
        found[f"{name}.weight"] = LowRank(
            lora_a=self._take(layer.lora_A[NAME].weight),
            lora_b=self._take(layer.lora_B[NAME].weight),
            scale=scale,
            magnitude=self._take(layer.lora_magnitude_vector[NAME].weight) if dora else None,
            transposed=isinstance(module, Conv1D),
            strength=self.strength,
        )
        if bias is not None and (dora or module.bias is None):
            raise ModelError(f"lora_bias on {name}, which has no bias or DoRA, cannot be merged.")
        if bias is not None:
            shift = Shifted(bias=self._take(bias), scale=scale, strength=self.strength)
            found[f"{name}.bias"] = shift
        return found

    def _rows(self, name: str, layer: Any) -> Rows:
        indices = tuple(int(index) for index in layer.token_indices[NAME])
        number = layer.get_base_layer().weight.shape[0]
        if indices and not 0 <= min(indices) <= max(indices) < number:
            raise ModelError(f"{name} has {number:,} rows, and token {max(indices)} was trained.")
        trained = self._take(layer.trainable_tokens_delta[NAME])
        return Rows(indices=indices, trained=trained, strength=self.strength)


def _untie(
    changes: dict[str, Change], groups: list[list[str]], names: dict[str, str]
) -> dict[str, str] | None:
    """New tensors for those that share one and are changed otherwise; None where none are.

    `names` gets the new ones too. Rows of tokens are trained in an embedding and in the head that
    is tied to it alike, and the two stay one.
    """
    untied: dict[str, str] | None = None
    for group in groups:
        touched = [name for name in group if name in changes]
        if not touched:
            continue
        held = [name for name in group if name in names]
        if len(touched) == len(group) and all(isinstance(changes[n], Rows) for n in group):
            for name in set(group) - set(held) if held else ():
                del changes[name]
            continue
        if not held or names[held[0]] != held[0]:
            raise ModelError(
                f"{' and '.join(group)} are one tensor, which the base's files name otherwise, and "
                "the adapter changes one of them alone: it cannot be merged."
            )
        new = [name for name in group if name not in names]
        names |= {name: name for name in new}
        untied = (untied or {}) | dict.fromkeys(new, held[0])
    return untied


def _without_copies(
    state: Mapping[str, Tensor],
    adapter: PeftAdapter,
    names: Mapping[str, str],
    original: Callable[[str], Tensor],
) -> dict[str, Tensor]:
    """What was trained: PEFT also saves the base's embedding and head where one is adapted.

    Raises ModelError where those are not the base's.
    """
    own = {name for name, _ in adapter.named_parameters()}
    kept = {}
    for name, tensor in state.items():
        place = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        if name in own or place not in names:
            kept[name] = tensor
            continue
        own_one = original(names[place])
        if tensor.shape != own_one.shape or not tensor.to(own_one.dtype).equal(own_one):
            raise ModelError(f"the adapter carries a {place} that is not the base's.")
    return kept
