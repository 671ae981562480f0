"""The frozen base: what a model choice must say (`ModelSpec`) and what it becomes (`Base`)."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from graftlab.errors import ModelError, require_choice

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from graftlab.adapters.base import Adapter
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Batch

ATTENTIONS = ("auto", "segments", "varlen", "dense")


@dataclass(kw_only=True, slots=True)
class ModelSpec(ABC):
    """A base model as configured; light until `load` is called."""

    template: str | None = None
    """Chat template: a known name (`chatml`), a Jinja file, or null for the model's own."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    attention: str = "auto"
    """How packed documents are kept apart: auto, segments, varlen or dense."""

    def __post_init__(self) -> None:
        require_choice("model.attention", self.attention, ATTENTIONS)

    @abstractmethod
    def check(self) -> None:
        """Whether the files are there, without importing anything heavy. Raises ModelError."""

    @abstractmethod
    def folder(self) -> Path:
        """The local folder with config, weights and tokenizer. Raises ModelError if absent."""

    @property
    def on_disk(self) -> bool:
        """Whether `folder` finds a folder of this machine, without any download."""
        return True

    def description(self) -> Path | None:
        """The folder with config and tokenizer, whose weights may be missing; None where only
        the architecture is known. Raises ModelError.
        """
        return self.folder()

    @abstractmethod
    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer with its chat template; never touches the weights."""

    @abstractmethod
    def load(self, *, dtype: torch.dtype, device: torch.device) -> Base:
        """The frozen `Base`, stored in `dtype` on `device`."""


class Base:
    """A frozen causal language model; an adapter is injected into it and taken out again.

    `model` is the Hugging Face module, in eval mode and without gradients as it comes. Its own
    dropouts are off for good: the base is a fixed function, only the adapter's dropout is drawn.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        name: str,
        source: str,
        folder: Path,
        fingerprint: str,
        attention: str = "auto",
    ) -> None:
        self.model = model
        self.name = name  # for people
        self.source = source  # what `from_pretrained` takes: a hub id or an absolute folder
        self.folder = folder
        self.fingerprint = fingerprint
        self.adapter: Adapter | None = None
        self.lendings = 0  # how many jobs of this process it was lent to
        self.answers: dict[str, Any] = {}
        """What it said by itself, for the next job of this process that asks the same."""
        parameters = list(model.parameters())
        self.dtype: torch.dtype = parameters[0].dtype
        self.device: torch.device = parameters[0].device
        self.attention = attention
        self.num_parameters = sum(parameter.numel() for parameter in parameters)
        model.requires_grad_(False)
        model.eval()
        _silence_dropout(model)

    @property
    def config(self) -> Any:
        """The text model's configuration."""
        return self.model.config.get_text_config()

    @property
    def vocab_size(self) -> int:
        return int(self.config.vocab_size)

    @cached_property
    def attention_choice(self) -> tuple[str, str]:
        """(backend, reason) of the packed attention. Raises ConfigError or ModelError."""
        from graftlab.packing.attention import choose_backend

        return choose_backend(self.attention, self.device, self.dtype, self.config)

    @property
    def backend(self) -> str:
        """segments, varlen or dense."""
        return self.attention_choice[0]

    @property
    def body(self) -> nn.Module:
        """The decoder without its head."""
        return cast("nn.Module", getattr(self.model, self.model.base_model_prefix))

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder layers, first to last."""
        from torch import nn

        for module in self.body.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.config.num_hidden_layers:
                return list(module)
        raise ModelError(f"{self.name}: no list of decoder layers found in {type(self.body)}.")

    def hidden(self, batch: Batch) -> Tensor:
        """Final hidden states (1, N, D); documents are isolated by the packed attention.

        No attention mask and an explicit `use_cache=False`: with either left out, transformers
        builds a mask of its own that lets packed documents see each other.
        """
        outputs = self.body(
            input_ids=batch.input_ids,
            position_ids=batch.positions,
            boundaries=batch.boundaries,
            packed_backend=self.backend,
            use_cache=False,
        )
        return cast("Tensor", outputs.last_hidden_state)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (n, V) of hidden states (n, D), softcap and scaling included.

        The model's own forward computes them, around a body that hands `hidden` through, so no
        architecture needs a case of its own. Copied on every call because an adapter may have
        replaced the head in between; the copy shares all parameters.
        """
        head = copy.copy(self.model)
        head._modules = {**self.model._modules, self.model.base_model_prefix: _hand_through()}
        return cast("Tensor", head(inputs_embeds=hidden[None], use_cache=False).logits[0])

    def save_model(self, folder: Path) -> None:
        """Write the whole model, with the weights it has at the moment, as it was loaded."""
        self.model.save_pretrained(folder)

    def set_checkpointing(self, on: bool) -> None:
        """Recompute each decoder layer in the backward pass, or not; called before training.

        Either way the model is in train mode afterwards: in eval mode, which a loaded model is in,
        transformers ignores the setting and adapter dropout is off.
        """
        if on:
            self.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
            # Transformers also makes the embeddings require gradients, for the reentrant kind:
            # that would run the backward pass through every layer below the first adapter.
            self.model.disable_input_require_grads()
        else:
            self.model.activation_checkpointing_disable()
        self.model.train()

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

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Stock attention, eager and in eval mode: what `model.generate` with a KV cache needs."""
        import torch

        packed = self.model.config._attn_implementation
        softcap = getattr(self.config, "attn_logit_softcapping", None)
        # Stock SDPA drops the softcap without a word.
        self.model.set_attn_implementation("eager" if softcap else "sdpa")
        try:
            with self.evaluating(), torch.compiler.set_stance("force_eager"):
                yield
        finally:
            self.model.set_attn_implementation(packed)

    def reset(self) -> None:
        """Back to the state of a fresh load: no adapter, no recomputation, eval mode."""
        if self.adapter is not None:
            self.adapter.detach()
        self.set_checkpointing(False)
        self.model.eval()


def _silence_dropout(model: nn.Module) -> None:
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def _hand_through() -> nn.Module:
    """A body whose final hidden states are the embeddings it is given."""
    from torch import nn
    from transformers.modeling_outputs import MoeModelOutputWithPast

    class HandThrough(nn.Module):
        def forward(self, *, inputs_embeds: Any, **_: Any) -> MoeModelOutputWithPast:
            # The fullest of transformers' outputs: heads of mixtures also read `router_logits`.
            return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)

    return HandThrough()
