"""An adapter onto its base: a new one or a trained one, in the classes of the base's own library.

Which library that is, `register_adapters` says by the class of the base; `lora=none` is the same
for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import TYPE_CHECKING

from graftlab.adapters import peft
from graftlab.adapters.origin import require_same_base
from graftlab.adapters.store import FULL
from graftlab.adapters.targets import check_targets
from graftlab.errors import ConfigError
from graftlab.models.base import Base, ModelSpec
from graftlab.models.gguf import GGUFModel
from graftlab.models.hf import HFModel
from graftlab.models.hf_base import HFBase
from graftlab.registry import load_rooms

if TYPE_CHECKING:
    import torch

    from graftlab.adapters.artifact import TrainedModel
    from graftlab.adapters.base import Adapter
    from graftlab.adapters.lora import Lora
    from graftlab.adapters.store import AdapterSource


def check_lora(model: ModelSpec, lora: Lora) -> None:
    """Whether this base can carry such an adapter; weights are not read. Raises ConfigError."""
    load_rooms()
    _check(model.made(), lora)


def attach(base: Base, lora: Lora, *, seed: int, dtype: torch.dtype) -> Adapter:
    """A new adapter on `base`, its weights in `dtype`; with `lora.from_run`, that one's weights.

    Initial values depend on the seed (`lora.seed`, else `seed`) and on each module's own name, not
    on other modules, the device or any global random state. With `lora.full` it is the base's own
    weights that are trained. Raises ConfigError.
    """
    if lora.full:
        from graftlab.adapters import full

        return full.attach(base, lora, dtype=dtype)
    load_rooms()
    return _attach(base, lora, seed=seed, dtype=dtype)


def load_adapter(base: Base, source: AdapterSource, *, dtype: torch.dtype | None = None) -> Adapter:
    """A trained adapter on `base`, in `dtype` (default fp32). Raises ModelError."""
    if source.config().get("format") == FULL:
        from graftlab.adapters import full

        return full.load(base, source, dtype=dtype)
    load_rooms()
    return _load(base, source, dtype=dtype)


def load_trained(
    base: Base, trained: TrainedModel, *, dtype: torch.dtype, force: bool | None = None
) -> Adapter | None:
    """The adapter of `trained` on `base`, which is its model loaded; None where it has none.

    Raises ModelError where it was trained on another base than lies there now; with `force` only
    where its files are others. `force` is None where nobody is asked for it.
    """
    source = trained.adapter
    if source is None:
        return None
    key = None if force is None else "force"
    require_same_base(
        source,
        base.name,
        base.fingerprint,
        as_stored=base.fingerprint_as,
        key=key,
        forced=bool(force),
    )
    return load_adapter(base, source, dtype=dtype)


def register_adapters(
    model: type[ModelSpec],
    base: type[Base],
    *,
    check: Callable[..., None],
    attach: Callable[..., Adapter],
    load: Callable[..., Adapter],
) -> None:
    """How the three functions above do their work for bases of these classes and those under them.

    `check(model, lora)`, `attach(base, lora, seed=, dtype=)`, `load(base, source, dtype=)`.
    """
    _check.register(model, check)
    _attach.register(base, attach)
    _load.register(base, load)


@singledispatch
def _check(model: ModelSpec, lora: Lora) -> None:
    raise AssertionError(f"no adapters are registered for {type(model).__name__}")


@singledispatch
def _attach(base: Base, lora: Lora, *, seed: int, dtype: torch.dtype) -> Adapter:
    raise AssertionError(f"no adapters are registered for {type(base).__name__}")


@singledispatch
def _load(base: Base, source: AdapterSource, *, dtype: torch.dtype | None) -> Adapter:
    raise AssertionError(f"no adapters are registered for {type(base).__name__}")


def _check_peft(model: ModelSpec, lora: Lora) -> None:
    check_targets(model.folder(), lora)


def _check_gguf(model: GGUFModel, lora: Lora) -> None:
    if lora.full:
        raise ConfigError(
            "lora=none trains all weights of the base, and those of a GGUF file are frozen blocks: "
            "take the model's own folder, model=hf model.path=DIR."
        )
    check_targets(model.folder(), lora, shapes=model.published.tensors())


register_adapters(HFModel, HFBase, check=_check_peft, attach=peft.attach, load=peft.load_adapter)
_check.register(GGUFModel, _check_gguf)
