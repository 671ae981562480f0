"""`lora=none`: every weight of the model is trained, as an adapter whose parameters are its own.

    lent       the base's parameters, untouched: for `disabled`, and what `detach` puts back
    masters    copies in the adapter's dtype (fp32 under mixed precision), in their places meanwhile

A folder of such an adapter is a whole model, which `model=hf model.path=RUN/adapter` loads:

    config.json, model.safetensors, ...    as `save_pretrained` writes them
    trained_from.json                      {"base", "base_fingerprint", "format": "full"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graftlab.adapters.base import Adapter
from graftlab.adapters.store import FULL, TRAINED_FROM
from graftlab.errors import ConfigError

if TYPE_CHECKING:
    from graftlab.adapters.lora import Lora
    from graftlab.adapters.store import AdapterSource
    from graftlab.models.base import Base


class FullAdapter(Adapter):
    """All weights of `base.model`, trainable; a tied weight is one parameter in two places."""

    def __init__(self, base: Base, *, dtype: torch.dtype) -> None:
        assert base.adapter is None, "this base already carries an adapter; detach it first"
        self.base = base
        self._lent = [
            (module, leaf, parameter)
            for module in base.model.modules()
            for leaf, parameter in module._parameters.items()
            if parameter is not None
        ]
        self._named = [
            (name, parameter, nn.Parameter(parameter.detach().to(dtype, copy=True)))
            for name, parameter in base.model.named_parameters()
        ]
        self._masters = {id(lent): master for _, lent, master in self._named}
        self._is_detached = False
        self._place(trained=True)
        base.adapter = self

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """All parameters under the model's own names, in its order."""
        return [(name, master) for name, _, master in self._named]

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over weights; of tied ones, files may hold both names, and buffers are the base's.

        Raises ModelError unless names and shapes agree.
        """
        own = {name for name, _, _ in self._named}
        model = self.base.model
        known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        known |= {name for name, _ in model.named_buffers()}
        super().load_state_dict({n: t for n, t in state.items() if n in own or n not in known})

    def config_dict(self) -> dict[str, Any]:
        """What `trained_from.json` and checkpoints hold."""
        return {
            "base": self.base.source,
            "base_fingerprint": self.base.fingerprint,
            "format": FULL,
        }

    def save(self, folder: Path) -> None:
        """Write the whole model into `folder`; equal weights give equal bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        with self.mounted() if self._is_detached else nullcontext():
            self.base.save_model(folder)
        text = json.dumps(self.config_dict(), indent=2)
        (folder / TRAINED_FROM).write_text(text + "\n", encoding="utf-8")

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base as it was lent."""
        was = self._trained
        self._place(trained=False)
        try:
            yield
        finally:
            self._place(trained=was)

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """Weights between the base's (0) and the trained ones (1)."""
        if factor == 1.0:
            yield
            return
        trained = [(master, master.data) for _, _, master in self._named]
        for _, lent, master in self._named:
            master.data = torch.lerp(lent.data.to(master.dtype), master.data, factor)
        try:
            yield
        finally:
            for master, data in trained:
                master.data = data

    def set_step(self, *, seed: int, step: int, micro_step: int) -> None:
        """Nothing is drawn: the model's own dropouts are off."""

    def detach(self) -> None:
        """Give the base its own parameters back; the trained ones are kept here."""
        self._place(trained=False)
        self._is_detached = True
        self.base.adapter = None

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """A detached adapter's weights in the base, inside the `with` block."""
        self._place(trained=True)
        try:
            yield
        finally:
            self._place(trained=False)

    def _place(self, *, trained: bool) -> None:
        self._trained = trained
        for module, leaf, lent in self._lent:
            module._parameters[leaf] = self._masters[id(lent)] if trained else lent


def attach(base: Base, lora: Lora, *, dtype: torch.dtype) -> FullAdapter:
    """All weights of `base`, ready to be trained; with `lora.from_run`, that run's weights.

    Raises ConfigError where that run is another base's, or trained an adapter only, and on codes.
    """
    from graftlab.adapters.artifact import find_start
    from graftlab.models.quantization.weight import QuantizedWeight

    if any(isinstance(weight.data, QuantizedWeight) for weight in base.model.parameters()):
        raise ConfigError(
            f"lora=none trains every weight, and those of {base.name} are codes, which are not "
            "trained: train an adapter, or take full-precision weights."
        )
    source = find_start(lora, base)
    if source is not None and source.config().get("format") != FULL:
        raise ConfigError(
            f"lora.from={lora.from_run} is an adapter; lora=none goes on from a run of lora=none."
        )
    adapter = FullAdapter(base, dtype=dtype)
    if source is not None:
        adapter.fill(source)
    return adapter


def load(base: Base, source: AdapterSource, *, dtype: torch.dtype | None = None) -> FullAdapter:
    """The weights that a run of `lora=none` left, on its base. Raises ModelError if unfit."""
    adapter = FullAdapter(base, dtype=dtype or torch.float32)
    adapter.fill(source)
    return adapter
