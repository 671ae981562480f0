"""A trained adapter on disk: a folder or one file; which of them a path means, says `artifact`.

DIR/adapter_config.json, adapter_model.safetensors    ours or PEFT's; with run.yaml where it is ours
DIR/trained_from.json beside a whole model            where all weights were trained (`full.py`)
last.ckpt                                             keys "adapter", "adapter_config" and "run"
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.models.folder import model_in
from graftlab.registry import load_rooms

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.models.base import ModelSpec

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
RUN = "run.yaml"
TRAINED_FROM = "trained_from.json"
"""In the folder of a model whose weights were all trained: from which base."""
FULL = "full"
"""The `format` of such weights; adapters of a library are in its own."""


@dataclass(frozen=True, slots=True)
class AdapterSource(ABC):
    """A trained adapter on disk; nothing heavy is read until it is asked for."""

    path: Path

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The folder the adapter lies in."""

    @property
    @abstractmethod
    def file(self) -> Path:
        """The file that holds the weights."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What `adapter_config.json` holds. Raises ModelError."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The weights under their names in the file, on the CPU. Raises ModelError."""

    @abstractmethod
    def run(self) -> dict[str, Any]:
        """The resolved configuration of the run that trained it; {} when it is not known."""

    @abstractmethod
    def base_fingerprint(self) -> str | None:
        """The fingerprint of the base it was trained on; None when others made it."""


@dataclass(frozen=True, slots=True)
class FolderSource(AdapterSource):
    """An adapter folder: weights in safetensors, a JSON config, and `run.yaml` where it is ours."""

    @property
    def folder(self) -> Path:
        return self.path

    @property
    def file(self) -> Path:
        return self.path / WEIGHTS

    def config(self) -> dict[str, Any]:
        from graftlab.models.weights import read_json

        return read_json(self.path / CONFIG)

    def tensors(self) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(self._weights())

    def _weights(self) -> Path:
        """The file of the weights. Raises ModelError where there is none."""
        file = self.path / WEIGHTS
        if file.is_file():
            return file
        advice = ""
        if (self.path / "adapter_model.bin").is_file():
            advice = (
                ": adapter_model.bin is a pickle, which can run code when read. Convert it once, "
                "where you trust it: PeftModel.from_pretrained(BASE, DIR).save_pretrained(NEW)"
            )
        raise ModelError(f"{self.path} has an {CONFIG} but no {WEIGHTS}{advice}.")

    def run(self) -> dict[str, Any]:
        from graftlab.files.checksums import check_head
        from graftlab.files.reading import UnreadableError, read_yaml

        file = self.path / RUN
        if not file.is_file():
            return {}
        try:
            check_head(file)
            return dict(read_yaml(file) or {})
        except (OSError, UnreadableError, TypeError, ValueError) as error:
            raise ModelError(f"{file} cannot be read: {error}") from error

    def base_fingerprint(self) -> str | None:
        from safetensors import safe_open

        with safe_open(self._weights(), framework="numpy") as file:
            return (file.metadata() or {}).get("base_fingerprint")


@dataclass(frozen=True, slots=True)
class ModelSource(FolderSource):
    """A folder with all weights of a model, trained from a base."""

    @property
    def model(self) -> ModelSpec:
        """The model that lies there. Raises ModelError where its own files are missing."""
        if (found := model_in(self.path)) is None:
            raise ModelError(f"{self.path} has a {TRAINED_FROM}, and no config of a model beside.")
        return found

    @property
    def file(self) -> Path:
        return self.model.weight_files()[0]

    def config(self) -> dict[str, Any]:
        from graftlab.models.weights import read_json

        return read_json(self.path / TRAINED_FROM)

    def tensors(self) -> dict[str, Tensor]:
        return self.model.read_weights()

    def base_fingerprint(self) -> str | None:
        return self.config().get("base_fingerprint")


@dataclass(frozen=True, slots=True)
class FileSource(AdapterSource):
    """An adapter that is one file."""

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def file(self) -> Path:
        return self.path


@dataclass(frozen=True, slots=True)
class CheckpointSource(FileSource):
    """The adapter inside a training checkpoint."""

    def config(self) -> dict[str, Any]:
        return dict(_checkpoint(self.path)["adapter_config"])

    def tensors(self) -> dict[str, Tensor]:
        return dict(_checkpoint(self.path)["adapter"])

    def run(self) -> dict[str, Any]:
        return dict(_checkpoint(self.path).get("run") or {})

    def base_fingerprint(self) -> str | None:
        return (_checkpoint(self.path).get("identity") or {}).get("base")


_CHECKPOINTS: dict[str, Callable[[Path], AdapterSource]] = {".ckpt": CheckpointSource}


def register_checkpoint(suffix: str, source: Callable[[Path], AdapterSource]) -> None:
    """Files with this ending are adapters, which `source(path)` reads."""
    _CHECKPOINTS[suffix] = source


def checkpoint_kinds() -> dict[str, Callable[[Path], AdapterSource]]:
    """Endings of the files that are adapters, and what reads each."""
    load_rooms()
    return dict(_CHECKPOINTS)


def _checkpoint(path: Path) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a torn file fails in pickle, zip or torch's own ways
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, dict) or not {"adapter", "adapter_config"} <= content.keys():
        raise ModelError(f"{path} is not a graftlab checkpoint: it holds no adapter.")
    return content
