"""`lora.init=eva`: A spans what a module's inputs vary in most, from the training data.

    batch ──▶ base ──▶ inputs x of each adapted module, at labelled positions
                       principal components of x, batch after batch    A = the first `rank` of them
                                                                       B = 0: the base stays exact

Explained variance adaptation (arXiv 2410.07170) with PEFT's own incremental decomposition. Its
redistribution of ranks between modules is left out (PEFT's rho = 1), so that an adapter has the
shape that is asked for, and the number of batches is bounded, which PEFT's loop over the data until
every component rests is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from graftlab.adapters.linear import NAME
from graftlab.errors import ConfigError
from graftlab.types import IGNORE, Batch

if TYPE_CHECKING:
    from graftlab.adapters.peft_adapter import PeftAdapter

MOST = 32
"""Batches at most."""
AT_REST = 0.99
"""Cosine of a component with itself one batch before, from which on it is taken to be found."""


@dataclass(slots=True)
class _Module:
    """What the inputs of one adapted module vary in."""

    name: str
    rank: int
    pca: Any
    waiting: list[Tensor] = field(default_factory=list)
    found: bool = False

    def add(self, rows: Tensor) -> None:
        """Take in inputs (n, in); they wait until they are enough for a decomposition."""
        self.waiting.append(rows.float())
        if sum(map(len, self.waiting)) < 2 * self.rank:
            return
        rows, self.waiting = torch.cat(self.waiting), []
        before = None if self.components is None else self.components.clone()
        self.pca.partial_fit(rows)
        if before is not None:
            still = functional.cosine_similarity(self.pca.components_, before)
            self.found = bool((still >= AT_REST).all())

    @property
    def components(self) -> Tensor | None:
        """(rank, in), the widest first; None before the first decomposition."""
        return getattr(self.pca, "components_", None)


@torch.no_grad()
def fit_to_data(
    adapter: PeftAdapter,
    batches: Iterable[Batch],
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> str:
    """Set the A of every module in the layers from the first of `batches`; a line for the log.

    Depends on the arguments alone. Raises ConfigError where a rank is larger than the inputs are
    wide, or the data too small for it.
    """
    modules, read = [_module(name, layer) for name, layer in adapter.layers.items()], 0
    for batch in batches:
        open_ones = [module for module in modules if not module.found]
        if not open_ones or read == MOST:
            break
        inputs = _inputs(adapter, batch, [module.name for module in open_ones], autocast)
        modules = [module for module in modules if module.found or module.name in inputs]
        for module in open_ones:
            if module.name in inputs:
                module.add(inputs[module.name])
        read += 1
    for module in modules:
        if module.components is None:
            raise ConfigError(
                f"lora.init=eva: the data has fewer than {2 * module.rank} trained tokens, which "
                f"rank {module.rank} needs. Take a lower lora.rank, or lora.init=default."
            )
        adapter.layers[module.name].lora_A[NAME].weight.copy_(module.components)
    resting = sum(module.found for module in modules)
    return f"lora.init=eva: A from {read} batches, at rest in {resting} of {len(modules)} modules"


def _module(name: str, layer: Any) -> _Module:
    from peft.utils.incremental_pca import IncrementalPCA

    rank, width = (int(size) for size in layer.lora_A[NAME].weight.shape)
    if rank > width:
        raise ConfigError(f"lora.init=eva: rank {rank} of {name} is more than its {width} inputs.")
    cheap = 2 * rank <= width  # as PEFT: twice as many directions are drawn as are kept
    pca = IncrementalPCA(n_components=rank, lowrank=cheap, lowrank_seed=42 if cheap else None)
    return _Module(name, rank, pca)


def _inputs(
    adapter: PeftAdapter,
    batch: Batch,
    names: list[str],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, Tensor]:
    """What these modules read at labelled positions, each (n, in), with the adapter switched off.

    The head is not among them: it is no part of this pass.
    """
    base = adapter.base
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def keeping(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def keep(_: Any, args: tuple[Any, ...]) -> None:
            seen[name].append(args[0].reshape(-1, args[0].shape[-1]))

        return keep

    with ExitStack() as stack:
        for context in (adapter.disabled(), base.evaluating(), autocast()):
            stack.enter_context(context)
        for name in names:
            linear = adapter.layers[name].get_base_layer()
            stack.callback(linear.register_forward_pre_hook(keeping(name)).remove)
        base.hidden(batch.to(base.device))
    trained = (batch.labels[0] != IGNORE).nonzero()[:, 0].to(base.device)
    rows = {name: torch.cat(parts) for name, parts in seen.items() if parts}
    # Where layers carry state, a shared prompt is read anew for each branch: then all rows count.
    return {name: x[trained] if len(x) == batch.num_tokens else x for name, x in rows.items()}
