"""The frozen base: what a model choice must say (`ModelSpec`) and what it becomes (`Base`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from graftlab.text.tokenizer import Tokenizer


@dataclass(kw_only=True, slots=True)
class ModelSpec(ABC):
    """A base model as configured; light until `load` is called."""

    template: str | None = None
    """Chat template: a known name (`chatml`), a path to a Jinja file, or null for the model's own."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    attention: str = "auto"
    """How packed documents are kept apart: auto, segments, varlen or dense."""

    @abstractmethod
    def folder(self) -> Path:
        """The local folder with config, weights and tokenizer. Raises ModelError if absent."""

    @abstractmethod
    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer with its chat template; never touches the weights."""

    @abstractmethod
    def load(self, *, dtype: torch.dtype, device: torch.device) -> Any:
        """The frozen `Base`, stored in `dtype` on `device`."""
