"""An adapter on its base: trainable parameters, dropout, strength, and the folder it is saved to.

adapter_model.safetensors    the trained tensors, under the names of the base's own library
adapter_config.json          how they were made: what that library reads, in plain JSON
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graftlab.adapters.store import CONFIG, WEIGHTS
from graftlab.errors import ModelError, listed
from graftlab.models.finite import describe_nonfinite
from graftlab.models.weights import misfits

if TYPE_CHECKING:
    from graftlab.adapters.store import AdapterSource
    from graftlab.models.base import Base


class CheckpointWriter(ABC):
    """Writes checkpoints of another make while an adapter is trained; `training` says when."""

    @abstractmethod
    def after_epoch(self, epoch: int, losses: Mapping[int, float], *, keep: int | None) -> None:
        """An epoch has ended, counted from 1; `losses` has the validation loss of each by then.

        At most `keep` files of epochs are kept, the best; None keeps all. Raises ModelError where a
        file cannot be written.
        """

    @abstractmethod
    def after_run(self) -> None:
        """The run has ended, and its adapter is that of the last step. Raises ModelError."""


class Adapter(ABC):
    """Trainable parameters injected into `base`; made by `attach` or `load_adapter`."""

    base: Base
    notes: Sequence[str] = ()
    """Lines for the log."""

    @property
    def num_trainable(self) -> int:
        return sum(parameter.numel() for _, parameter in self.named_parameters())

    @abstractmethod
    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters under their names in the file, in the model's own order."""

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the weights on the CPU, under their names in the file."""
        return {
            name: p.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, p in self.named_parameters()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over weights by their names in the file.

        Raises ModelError unless names and shapes agree.
        """
        own = dict(self.named_parameters())
        if problems := misfits(state, {name: p.shape for name, p in own.items()}):
            raise ModelError(f"adapter weights do not fit: {listed(problems, 3, '; ')}")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])

    def fill(self, source: AdapterSource) -> None:
        """Take over the weights in `source`; else leave a clean base and raise ModelError."""
        tensors = source.tensors()
        if (found := describe_nonfinite(tensors.items())) is not None:
            self.detach()
            raise ModelError(f"{source.file} is damaged or was trained to divergence: {found}.")
        try:
            self.take_over(tensors)
        except ModelError as error:
            self.detach()
            raise ModelError(f"{source.path} does not fit {self.base.name}: {error}") from error

    def take_over(self, tensors: Mapping[str, Tensor]) -> None:
        """Load an adapter's file, with whatever else it may hold. Raises ModelError."""
        self.load_state_dict(tensors)

    @abstractmethod
    def config_dict(self) -> dict[str, Any]:
        """What `adapter_config.json` holds, in plain types and a stable order."""

    def save(self, folder: Path) -> None:
        """Write both files into `folder`; equal adapters give equal bytes."""
        from safetensors.torch import save

        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"format": "pt", "base_fingerprint": self.base.fingerprint}
        (folder / WEIGHTS).write_bytes(_sorted_header(save(self.state_dict(), metadata)))
        text = json.dumps(self.config_dict(), indent=2)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")

    def checkpoint_writers(self, folder: Path) -> Sequence[CheckpointWriter]:
        """Writers into `folder` of checkpoints that other tools for the base read, beside ours."""
        return ()

    @abstractmethod
    def disabled(self) -> AbstractContextManager[None]:
        """The base alone, also inside another such block; what is trainable stays as it is."""

    @abstractmethod
    def scaled(self, factor: float) -> AbstractContextManager[None]:
        """The adapter at another strength: 0 is the base, 1 as trained, between them softer."""

    @abstractmethod
    def set_step(self, *, seed: int, step: int, micro_step: int) -> None:
        """Draw the dropout masks of f(seed, step, micro_step, module) from here on."""

    @abstractmethod
    def detach(self) -> None:
        """Take the adapter out of the base, which is then bit-identical to a fresh one.

        The adapter keeps its weights, can be saved, and be `mounted` again.
        """

    @abstractmethod
    def mounted(self) -> AbstractContextManager[None]:
        """A detached adapter back on its base, inside the `with` block."""


def restore_modules(model: nn.Module, originals: Mapping[str, nn.Module]) -> None:
    """Put every replaced module of `model` back, parents before children."""
    for name, module in originals.items():
        parent_name, _, attribute = name.rpartition(".")
        if not name:
            continue
        parent = originals[parent_name]
        if parent._modules.get(attribute) is not module:
            parent._modules[attribute] = module
    if hasattr(model, "peft_config"):
        del model.peft_config


@contextmanager
def installed(model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """`modules` in the places of `model` that they are named for; what stood there comes back."""
    places = [(model.get_submodule(name.rpartition(".")[0]), name) for name in modules]
    before = []
    try:
        for parent, name in places:
            leaf = name.rpartition(".")[2]
            before.append((parent, leaf, parent._modules[leaf]))
            parent._modules[leaf] = modules[name]
        yield
    finally:
        for parent, leaf, module in before:
            parent._modules[leaf] = module


def _sorted_header(data: bytes) -> bytes:
    """A safetensors file with its header in a fixed order; the library writes metadata in any."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of eight
    return len(header).to_bytes(8, "little") + header + data[end:]
