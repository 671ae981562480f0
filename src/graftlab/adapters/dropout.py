"""Adapter dropout with named streams: the mask is a function of (seed, step, micro_step, module).

A resumed run, a recomputed layer (gradient checkpointing) and a compiled one draw the same masks,
and no global random state is read or written. The draw is a custom op: `torch.compile` sees one
opaque node whose key is an ordinary tensor, so a new step never recompiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn


@torch.library.custom_op("graftlab::keyed_dropout", mutates_args=())
def keyed_dropout(x: Tensor, key: Tensor, p: float) -> Tensor:
    """`x` with a share `p` zeroed and the rest scaled by 1 / (1 - p); `key` is int64 on the CPU."""
    generator = torch.Generator(x.device).manual_seed(int(key))
    keep = torch.empty_like(x).bernoulli_(1 - p, generator=generator)
    return keep.mul_(x).div_(1 - p)


@keyed_dropout.register_fake
def _(x: Tensor, key: Tensor, p: float) -> Tensor:
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    _, key, ctx.p = inputs
    ctx.save_for_backward(key)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    (key,) = ctx.saved_tensors
    # Drawn again rather than kept. Contiguous, because the draw follows the memory layout.
    return keyed_dropout(gradient.contiguous(), key, ctx.p), None, None


keyed_dropout.register_autograd(_backward, setup_context=_save)


class KeyedDropout(nn.Module):
    """Dropout of an adapter's input; nothing in eval mode."""

    def __init__(self, p: float, key: Tensor) -> None:
        super().__init__()
        self.p = p
        self.key = key  # a plain attribute: moving the model must not move it off the CPU

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # The draw follows the memory layout, so forward and backward must agree on it.
        return cast(Tensor, keyed_dropout(x.contiguous(), self.key, self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class DropoutStreams:
    """The keys of all adapted modules, set together once per micro-batch."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = torch.tensor([_hash(name) for name in names], dtype=torch.int64)
        self._keys = self._names.clone()

    def dropouts(self, p: float) -> list[KeyedDropout]:
        """One dropout per name, in the order the names were given in."""
        return [KeyedDropout(p, key) for key in self._keys.unbind()]

    def set_step(self, *, seed: int, step: int, micro_step: int) -> None:
        torch.bitwise_xor(self._names, _hash(f"{seed} {step} {micro_step}"), out=self._keys)


def _hash(text: str) -> int:
    """63 bits: torch's keys are signed."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
