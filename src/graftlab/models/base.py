"""The frozen base: what a model choice must say (`ModelSpec`) and what it becomes (`Base`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from graftlab.errors import ConfigError, ModelError, require_choice
from graftlab.models.dimensions import Dimensions
from graftlab.models.quantization.base import Quantization
from graftlab.models.randomness import silence_randomness
from graftlab.registry import group, name_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from graftlab.models.architecture import Published
    from graftlab.models.context import Context
    from graftlab.models.slots import Slots
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Batch

ATTENTIONS = ("auto", "segments", "varlen", "dense", "own")


@group("model")
@dataclass(kw_only=True, slots=True)
class ModelSpec(ABC):
    """A base model as configured; light until `load` is called."""

    template: str | None = None
    """Chat template: a known name (`chatml`), a Jinja file, or null for the model's own."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    attention: str = "auto"
    """How packed documents are kept apart: auto, segments, varlen or dense; own computes each by
    itself, in the model's own attention."""
    quantization: Quantization = field(default_factory=Quantization)

    quantises: ClassVar[bool] = False
    """Whether its weights can be stored as codes."""

    def __post_init__(self) -> None:
        require_choice("model.attention", self.attention, ATTENTIONS)
        if self.quantization.title and not self.quantises:
            raise ConfigError(
                f"quantization={name_of(self.quantization)} stores the weights of model=hf as "
                f"codes, and not those of model={name_of(self)}: leave it out."
            )

    @abstractmethod
    def check(self) -> None:
        """Whether the files are there, without importing anything heavy. Raises ModelError."""

    @abstractmethod
    def folder(self) -> Path:
        """The local folder with config, weights and tokenizer. Raises ModelError if absent."""

    def made(self) -> ModelSpec:
        """The spec of its files, which are made now where it has none of its own."""
        return self

    @property
    def on_disk(self) -> bool:
        """Whether `folder` finds a folder of this machine, without any download."""
        return True

    def description(self) -> Path | None:
        """The folder with config and tokenizer, whose weights may be missing; None where only
        the architecture is known. Raises ModelError.
        """
        return self.folder()

    @property
    @abstractmethod
    def name(self) -> str:
        """For people."""

    @abstractmethod
    def fingerprint(self) -> str:
        """16 hex digits that another or a finetuned model does not share. Raises ModelError."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """What its weights take on disk; 0 where they are not on this machine."""

    @abstractmethod
    def weight_files(self) -> list[Path]:
        """The files that hold its weights, at least one. Raises ModelError where they are not."""

    @abstractmethod
    def read_weights(self) -> dict[str, Tensor]:
        """All weights under their names in the files, on the CPU. Raises ModelError."""

    @property
    def storage(self) -> Quantization:
        """How its weights lie in memory: as `quantization` asks, or in the codes of its files."""
        return self.quantization

    @property
    def published(self) -> Published | None:
        """What `graftlab plan` counts where the files are not Hugging Face's; None otherwise."""
        return None

    def plan_draft(self, *, layers: int | None, hidden: int | None) -> dict[str, Any]:
        """What a small model after this one would be, in plain content: all but its weights.

        None takes a share of its own. Weights are not read. Raises ModelError or ConfigError.
        """
        raise ModelError(f"{self.name} is of a kind after which no draft can be made.")

    def build_draft(
        self, folder: Path, *, layers: int | None, hidden: int | None, seed: int, embedding: str
    ) -> None:
        """Write such a model into `folder`, but for its tokenizer; `embedding` as `model=draft`.

        Raises ModelError or ConfigError.
        """
        raise ModelError(f"{self.name} is of a kind after which no draft can be made.")

    def stateful_layers(self) -> list[str]:
        """Kinds of layers that carry state along a row, beside attention; weights are not read."""
        return []

    @property
    def packing_obstacle(self) -> str | None:
        """Why each document needs a pass of its own; None where several can share one."""
        return None

    @property
    def joint_obstacle(self) -> str | None:
        """Why adapters on this base cannot train jointly; None where they can."""
        return None

    @property
    def compile_obstacle(self) -> str | None:
        """Why its layers are not compiled, whatever the machine; None where they can be."""
        return None

    @abstractmethod
    def load_tokenizer(self, folder: Path | None = None) -> Tokenizer:
        """The tokenizer with its chat template, its own or the one saved in `folder`.

        Never touches the weights. Raises ModelError.
        """

    @abstractmethod
    def load(self, *, dtype: torch.dtype, device: torch.device) -> Base:
        """The frozen `Base`, stored in `dtype` on `device`."""


class AttachedAdapter(Protocol):
    """What a base knows of the adapter that is on it."""

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Its trainable parameters, by name."""

    def detach(self) -> None:
        """Take it out of the base, which is then as it was."""


class Base(ABC):
    """A frozen causal language model; an adapter is injected into it and taken out again.

    `model` is the module that computes it, in eval mode and without gradients as it comes. Its own
    dropouts are off for good: the base is a fixed function, only the adapter's dropout is drawn.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        source: str,
        folder: Path,
        fingerprint: str,
        fingerprint_as: Callable[[Quantization], str] | None = None,
        attention: str = "auto",
    ) -> None:
        self.model = model
        self.name = name  # for people
        self.source = source  # what its library loads it from: a hub id or an absolute folder
        self.folder = folder
        self.fingerprint = fingerprint
        self.fingerprint_as = fingerprint_as or (lambda _: fingerprint)  # stored otherwise
        self.adapter: AttachedAdapter | None = None
        self.lendings = 0  # how many jobs of this process it was lent to
        self.answers: dict[str, Any] = {}  # to its own questions, for the next job that asks them
        parameters = list(model.parameters())
        self.dtype: torch.dtype = parameters[0].dtype
        self.device: torch.device = parameters[0].device
        self.attention = attention
        self.num_parameters = sum(parameter.numel() for parameter in parameters)
        model.requires_grad_(False)
        model.eval()
        silence_randomness(model)

    @property
    @abstractmethod
    def dimensions(self) -> Dimensions:
        """Its sizes."""

    @property
    def vocab_size(self) -> int:
        return self.dimensions.vocab_size

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Most tokens of a prompt with its reply; None when the model does not say."""

    @property
    @abstractmethod
    def attention_choice(self) -> tuple[str, str]:
        """(backend, reason) of the packed attention. Raises ConfigError or ModelError."""

    @property
    def backend(self) -> str:  # segments, varlen, dense or own
        return self.attention_choice[0]

    @property
    def stateful_layers(self) -> list[str]:
        """Kinds of layers in which something but attention carries state between positions.

        With any, `hidden` computes one segment after the other, each in a pass of its own.
        """
        return []

    @property
    @abstractmethod
    def layers(self) -> list[nn.Module]:
        """The decoder layers, first to last."""

    @abstractmethod
    def hidden(self, batch: Batch) -> Tensor:
        """Final hidden states (1, N, D); documents are isolated by the packed attention."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (n, V) of hidden states (n, D), softcap and scaling included."""

    def own_logits(self, ids: Tensor) -> Tensor:
        """Next-token logits (1, T, V) of one document (1, T), in stock attention, eval mode and
        fp32: what the packed passes must agree with.
        """
        with self.context() as context:
            return context.feed(ids)

    @abstractmethod
    def save_model(self, folder: Path) -> None:
        """Write the whole model, with the weights it has at the moment, as it was loaded."""

    @abstractmethod
    def set_checkpointing(self, on: bool) -> None:
        """Recompute each decoder layer in the backward pass, or not; called before training.

        Either way the model is in train mode afterwards, so that adapter dropout is on.
        """

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode (no adapter dropout, no recomputation); restores the mode of every module."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

    @abstractmethod
    def context(self, *, padding: Tensor | None = None, rewind: bool = False) -> Context:
        """A fresh context to read in, for the length of a `with` block.

        `padding` (B,) says how many tokens at the left of each row are none; None for no padding.
        `rewind` makes `crop` possible, and raises ModelError where the model cannot.
        """

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Inside, what replies are made with is kept from one of them to the next."""
        yield

    def slots(self, count: int) -> Slots | None:
        """Slots to decode in, inside `answering`; None where contexts alone serve."""
        return None

    def reset(self) -> None:
        """Back to the state of a fresh load: no adapter, no recomputation, eval mode."""
        if self.adapter is not None:
            self.adapter.detach()
        self.set_checkpointing(False)
        self.model.eval()
