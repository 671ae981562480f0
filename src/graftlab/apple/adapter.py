"""An adapter of tamm on Apple's on-device model: on, off, at another strength, out and in again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tamm.adapters
import torch
from torch import nn

from graftlab.adapters.base import Adapter, CheckpointWriter
from graftlab.adapters.dropout import DropoutStreams, KeyedDropout
from graftlab.apple.epoch_files import EpochFiles
from graftlab.apple.targets import ADAPTER, Make, plain_config

if TYPE_CHECKING:
    from graftlab.apple.base import AFMBase


class TammAdapter(Adapter):
    """`modules` are tamm's layer adapters by the name of the layer each is put into."""

    def __init__(
        self, base: AFMBase, make: Make, modules: Mapping[str, nn.Module], *, dtype: torch.dtype
    ) -> None:
        self.base = base
        self.make = make
        self.notes = make.notes
        self._modules = dict(modules)
        for module in self._modules.values():
            module.to_empty(device=base.device).to(dtype).train(base.model.training)
        self.loras: dict[str, Any] = {
            ".".join(filter(None, (name, "adapters", ADAPTER, inner))): child
            for name, module in self._modules.items()
            for inner, child in module.named_modules()
            if isinstance(child, tamm.adapters.layer_adapters.LoRA)
        }
        self._parameters = [
            (f"{name}.{factor}", getattr(lora, factor))
            for name, lora in self.loras.items()
            for factor in ("a_transpose", "b_transpose")
        ]
        self._streams = DropoutStreams(self.loras)
        if make.dropout:
            drops = self._streams.dropouts(make.dropout)
            for lora, drop in zip(self.loras.values(), drops, strict=True):
                _drop_inputs(lora, drop)
        self._insert()
        base.adapter = self

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self._parameters)

    def config_dict(self) -> dict[str, Any]:
        where = {"base_model_name_or_path": self.base.source, "tamm_version": version("tamm")}
        return {**plain_config(self.make), **where}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        active = [layer for layer in self._layers() if layer.active_adapter_id is not None]
        for layer in active:
            layer.unset_active_adapter()
        try:
            yield
        finally:
            for layer in active:
                layer.set_active_adapter(ADAPTER)

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        for lora in self.loras.values():
            lora.alpha = self.make.alpha * factor
        try:
            yield
        finally:
            for lora in self.loras.values():
                lora.alpha = self.make.alpha

    def set_step(self, *, seed: int, step: int, micro_step: int) -> None:
        self._streams.set_step(seed=seed, step=step, micro_step=micro_step)

    def detach(self) -> None:
        self._remove()
        self.base.adapter = None

    @contextmanager
    def mounted(self) -> Iterator[None]:
        self._insert()
        try:
            yield
        finally:
            self._remove()

    def checkpoint_writers(self, folder: Path) -> Sequence[CheckpointWriter]:
        return [EpochFiles(self, folder)]

    def _layers(self) -> list[Any]:
        return [self.base.model.get_submodule(name) for name in self._modules]

    def _insert(self) -> None:
        for layer, module in zip(self._layers(), self._modules.values(), strict=True):
            layer.add_adapter(ADAPTER, module)
            layer.set_active_adapter(ADAPTER)

    def _remove(self) -> None:
        for layer in self._layers():
            layer.delete_adapter(ADAPTER)


@torch.no_grad()
def initialise(adapter: TammAdapter, kind: str, *, seed: int) -> None:
    """As PEFT's, but that tamm's own default draws A normal with variance 1 / fan-in, B zero."""
    from graftlab.adapters.initial import draw, name_seed

    for name, lora in adapter.loras.items():
        generator = torch.Generator().manual_seed(name_seed(seed, name))
        down, up = lora.a_transpose, lora.b_transpose
        if kind == "default":
            first = torch.empty(down.T.shape)
            nn.init.normal_(first, std=down.shape[0] ** -0.5, generator=generator)
            second = torch.zeros(up.T.shape)
        else:
            first, second = draw(kind, down.T.shape, up.T.shape, generator)
        down.copy_(first.T)
        up.copy_(second.T)


def _drop_inputs(lora: nn.Module, drop: KeyedDropout) -> None:
    """Put `drop` in front of `lora`: tamm's own dropout draws from the process's generator."""

    def dropped(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        drop.training = module.training
        (x,) = kwargs["transformed_args"]
        return args, {**kwargs, "transformed_args": (drop(x),)}

    lora.register_forward_pre_hook(dropped, with_kwargs=True)
