"""Adapters laid over each other, and the passes through base and all of them.

    down   (K, r, in)    adapter k's A is down[k, :rank_k]        a view, not a copy
    up     (K, r, out)   adapter k's B is up[k, :rank_k].T        likewise, and so are its gradients

Each adapter keeps its own parameters under PEFT's names; only where they lie is changed. An
optimizer that steps one of them changes the stack, so nothing is gathered or scattered in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from graftlab.adapters.base import Adapter, installed
from graftlab.adapters.dropout import KeyedDropout
from graftlab.adapters.linear import NAME, is_plain
from graftlab.adapters.peft_adapter import PeftAdapter
from graftlab.errors import ConfigError
from graftlab.objectives.policy import Policy
from graftlab.training.joint.linear import JointLinear
from graftlab.training.joint.shared_layers import laid
from graftlab.types import Batch

if TYPE_CHECKING:
    from graftlab.models.base import Base


class SlicePolicy(Policy):
    """What an objective asks about one adapter: its block of hidden states, handed in before."""

    def __init__(self, base: Base, adapter: Adapter) -> None:
        super().__init__(base, adapter)
        self.block: Tensor | None = None  # (1, N, D)
        self.bare: Tensor | None = None  # (n, D), of the base alone, where it is asked

    def hidden(self, batch: Batch) -> Tensor:
        assert self.block is not None, "the joint pass comes before the objective"
        return self.block

    def reference(self, batch: Batch) -> Tensor:
        assert self.bare is not None, "the base's pass comes before the objective"
        return self.bare

    def reference_logits(self, hidden: Tensor) -> Tensor:
        """The head is the base's own: no adapter of a joint run lies outside the layers."""
        with torch.no_grad():
            return self.logits(hidden)

    @contextmanager
    def given(self, block: Tensor, bare: Tensor | None) -> Iterator[None]:
        """What an objective finds while it is asked."""
        self.block, self.bare = block, bare
        try:
            yield
        finally:
            self.block = self.bare = None


class Stack:
    """Detached adapters of one base, stacked; `release` gives them their own memory back.

    Each has passed `require_stackable`.
    """

    def __init__(self, base: Base, adapters: Sequence[Adapter]) -> None:
        self.base, self.adapters = base, [cast("PeftAdapter", a) for a in adapters]
        names = dict.fromkeys(name for adapter in self.adapters for name in adapter.layers)
        self.modules = {name: self._join(name) for name in names}
        factors = [factor for m in self.modules.values() for factor in (m.down, m.up)]
        self._adapted_layers = self._from_first_adapted()
        self._gradients = [cast("Tensor", factor.grad) for factor in factors]

    def __len__(self) -> int:
        return len(self.adapters)

    def _join(self, name: str) -> JointLinear:
        """The joint layer of one module, with every adapter's factors moved into it."""
        layers = [adapter.layers.get(name) for adapter in self.adapters]
        first = next(layer for layer in layers if layer is not None)
        linear = cast("nn.Linear", first.get_base_layer())
        weight = first.lora_A[NAME].weight
        rank = max(layer.r[NAME] for layer in layers if layer is not None)
        shape = (len(layers), rank)
        down = weight.new_zeros((*shape, linear.in_features), requires_grad=True)
        up = weight.new_zeros((*shape, linear.out_features), requires_grad=True)
        down.grad, up.grad = torch.zeros_like(down), torch.zeros_like(up)
        scale = torch.zeros(len(layers), 1, 1, device=weight.device)
        drops: list[KeyedDropout | None] = []
        for index, layer in enumerate(layers):
            drop = None if layer is None else layer.lora_dropout[NAME]
            drops.append(drop if isinstance(drop, KeyedDropout) else None)
            if layer is not None:
                scale[index] = layer.scaling[NAME]
                _move(layer.lora_A[NAME].weight, down, down.grad, index, transposed=False)
                _move(layer.lora_B[NAME].weight, up, up.grad, index, transposed=True)
        return JointLinear(linear, down=down, up=up, scale=scale, drops=drops)

    def _from_first_adapted(self) -> list[nn.Module]:
        """The decoder layers from the first one that any adapter is in."""
        linears = {id(module.base) for module in self.modules.values()}
        layers = self.base.layers
        first = next(
            index
            for index, layer in enumerate(layers)
            if any(id(module) in linears for module in layer.modules())
        )
        return layers[first:]

    def release(self) -> None:
        """Every adapter's weights into memory of their own; the stack is of no use any more."""
        for adapter in self.adapters:
            for _, parameter in adapter.named_parameters():
                parameter.grad = None
                parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)

    def zero_grad(self) -> None:
        torch._foreach_zero_(self._gradients)

    def hidden(self, batch: Batch) -> Tensor:
        """Final hidden states (1, K * N, D) of `batch` under each adapter; K: those chosen.

        Without gradients, as layers that are recomputed need `batch` laid until then.
        """
        chosen = next(iter(self.modules.values())).chosen
        times = len(self) if chosen is None else len(chosen)
        with torch.no_grad(), laid(self._adapted_layers, batch, times):
            return self.base.hidden(batch)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """The joint layers in the base, for forward and backward passes."""
        with installed(self.base.model, self.modules):
            yield

    @contextmanager
    def only(self, chosen: Sequence[int]) -> Iterator[None]:
        """Let only these adapters' blocks through, in this order; without gradients."""
        whole = list(chosen) == list(range(len(self)))
        index = None if whole else torch.tensor(list(chosen), device=self.base.device)
        for module in self.modules.values():
            module.chosen = index
        try:
            yield
        finally:
            for module in self.modules.values():
                module.chosen = None

    def backward(
        self,
        batch: Batch,
        policies: Sequence[SlicePolicy],
        losses: Sequence[Callable[[Batch], Tensor]],
        *,
        autocast: Callable[[], AbstractContextManager[Any]],
        bare: Tensor | None = None,
    ) -> None:
        """One pass of `batch` through base and adapters, and back, adding to all gradients.

        `losses` compute each adapter's loss from its policy; `bare` (n, D) is the base alone at
        the labelled positions, where they ask for it. They are taken one after the other,
        down to the hidden states, so that only one adapter's logits exist at a time; then one
        backward pass takes all of them through the layers.
        """
        with self.mounted(), laid(self._adapted_layers, batch, len(self)):
            with autocast():
                hidden = self.base.hidden(batch)
            blocks = [b.detach().requires_grad_() for b in hidden.chunk(len(self), dim=1)]
            for policy, block, loss in zip(policies, blocks, losses, strict=True):
                with policy.given(block, bare):
                    torch.autograd.backward(loss(batch))
            gradients = [cast("Tensor", block.grad) for block in blocks]
            torch.autograd.backward(hidden, torch.cat(gradients, dim=1))


def base_alone(
    base: Base, batch: Batch, *, autocast: Callable[[], AbstractContextManager[Any]]
) -> Tensor:
    """Hidden states (n, D) of the bare base at the labelled positions, without gradients."""
    with autocast():
        return Policy(base, None).reference(batch)


def _move(
    parameter: nn.Parameter, stacked: Tensor, gradients: Tensor, index: int, *, transposed: bool
) -> None:
    """Make a parameter and its gradient views into the stack."""
    rank = parameter.shape[1] if transposed else parameter.shape[0]
    place, gradient = stacked.detach()[index, :rank], gradients[index, :rank]
    if transposed:
        place, gradient = place.T, gradient.T
    place.copy_(parameter.detach())
    parameter.data = place
    parameter.grad = gradient


def require_stackable(adapter: Adapter) -> None:
    """Raise ConfigError unless the adapter is PEFT's LoRA on linear layers of the decoder."""
    if not isinstance(adapter, PeftAdapter):
        raise ConfigError(
            f"{adapter.base.name} carries its own kind of adapter, which does not train jointly. "
            "Use launcher=local."
        )
    inside = {id(module) for layer in adapter.base.layers for module in layer.modules()}
    for name, layer in adapter.layers.items():
        base: nn.Module = layer.get_base_layer()
        if id(base) not in inside:
            raise ConfigError(
                f"{name} lies outside the decoder layers: it does not train jointly. "
                "Use launcher=local, or other lora.targets."
            )
        if not is_plain(layer) or adapter.saved or adapter.tokens:
            raise ConfigError(
                f"{name} is a {type(base).__name__} under {_kind(layer)}: only LoRA on linear "
                "layers trains jointly. Use launcher=local, or other lora.targets."
            )


def _kind(layer: LoraLayer) -> str:
    return "plain LoRA" if not layer.lora_variant else "a variant of LoRA"
