"""A base of Hugging Face transformers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from graftlab.errors import ModelError
from graftlab.models.base import Base, Dimensions
from graftlab.models.stateful import stateful_layers

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from graftlab.models.hf_context import HFContext
    from graftlab.types import Batch


class HFBase(Base):
    """A `PreTrainedModel` whose attention is `packing.attention`."""

    model: Any

    def save_model(self, folder: Path) -> None:
        self.model.save_pretrained(folder)

    @property
    def config(self) -> Any:
        """The text model's configuration."""
        return self.model.config.get_text_config()

    @property
    def dimensions(self) -> Dimensions:
        config = self.config
        heads = getattr(config, "num_attention_heads", None) or 0  # none in a Mamba
        head = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
        return Dimensions(int(config.hidden_size), int(config.vocab_size), heads * head)

    @property
    def max_length(self) -> int | None:
        return getattr(self.config, "max_position_embeddings", None)

    @cached_property
    def attention_choice(self) -> tuple[str, str]:
        from graftlab.packing.attention import choose_backend

        if not self.dimensions.attention_width:
            return "segments", "there is no attention"
        return choose_backend(self.attention, self.device, self.dtype, self.config)

    @cached_property
    def stateful_layers(self) -> list[str]:
        shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        kinds = list(getattr(self.config, "layer_types", None) or ())
        return stateful_layers({"layer_types": kinds}, shapes)

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

        Where layers carry state, by computing each document in a pass of its own, and each branch
        of one behind what it continues.
        """
        if not self.stateful_layers:
            return self._pass(batch.input_ids, batch.positions, batch.boundaries, batch.parents)
        import torch

        from graftlab.packing.runs import find_runs

        parts = []
        for run in find_runs(batch.boundaries, batch.parents):
            extents = [slice(start, end) for start, end in (*run.prefix, (run.start, run.end))]
            ids, positions = (
                torch.cat([tensor[:, extent] for extent in extents], dim=1)
                for tensor in (batch.input_ids, batch.positions)
            )
            alone = torch.tensor([0, ids.shape[1]], dtype=torch.int32)
            parts.append(self._pass(ids, positions, alone)[:, run.before :])
        return torch.cat(parts, dim=1)

    def _pass(
        self,
        input_ids: Tensor,
        positions: Tensor,
        boundaries: Tensor,
        parents: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states of one pass through the decoder.

        No attention mask and an explicit `use_cache=False`: with either left out, transformers
        builds a mask of its own that lets packed documents see each other.
        """
        outputs = self.body(
            input_ids=input_ids,
            position_ids=positions,
            boundaries=boundaries,
            parents=parents,
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
        head._modules = {
            **self.model._modules,
            self.model.base_model_prefix: _hand_through(self.body),
        }
        return cast("Tensor", head(inputs_embeds=hidden[None], use_cache=False).logits[0])

    def own_logits(self, ids: Tensor) -> Tensor:
        with self.plain():
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits.float()

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

    def context(self, *, padding: Tensor | None = None, rewind: bool = False) -> HFContext:
        from graftlab.models.hf_context import HFContext

        return HFContext(self, stock=self.plain, padding=padding, rewind=rewind)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Stock attention, eager and in eval mode: what `model.generate` with a KV cache needs."""
        import torch

        packed = self.model.config._attn_implementation
        softcap = getattr(self.config, "attn_logit_softcapping", None)
        if self.dimensions.attention_width:
            # Stock SDPA drops the softcap without a word.
            self.model.set_attn_implementation("eager" if softcap else "sdpa")
        try:
            with self.evaluating(), torch.compiler.set_stance("force_eager"):
                yield
        finally:
            if self.dimensions.attention_width:
                self.model.set_attn_implementation(packed)


def _hand_through(body: nn.Module) -> nn.Module:
    """A body whose final hidden states are the embeddings it is given."""
    from torch import nn
    from transformers.modeling_outputs import MoeModelOutputWithPast

    class HandThrough(nn.Module):
        def forward(self, *_: Any, inputs_embeds: Any, **__: Any) -> MoeModelOutputWithPast:
            # The fullest of transformers' outputs: heads of mixtures also read `router_logits`,
            # and Mamba's what it calls its cache.
            output: Any = MoeModelOutputWithPast(last_hidden_state=inputs_embeds)
            output.cache_params = None
            return cast("MoeModelOutputWithPast", output)

        def __getattr__(self, name: str) -> Any:
            return getattr(body, name)  # such as a factor that its head multiplies with

    return HandThrough()
