"""A base of Hugging Face transformers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from graftlab.errors import ConfigError
from graftlab.limits import free_memory_bytes
from graftlab.models.base import Base
from graftlab.models.dimensions import Dimensions
from graftlab.models.stateful import stateful_layers
from graftlab.types import widest

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from graftlab.models.context import Context
    from graftlab.models.lean_weights import LeanStore, LeanWeights
    from graftlab.models.slots import Slots
    from graftlab.types import Batch


class HFBase(Base):
    """A `PreTrainedModel` whose attention is `packing.attention`."""

    model: Any
    _answering = 0
    _store: LeanStore | None = None

    def save_model(self, folder: Path) -> None:
        self.model.save_pretrained(folder)

    @property
    def config(self) -> Any:
        """The text model's configuration."""
        return self.model.config.get_text_config()

    @property
    def dimensions(self) -> Dimensions:
        config = self.config
        heads = widest(config, "num_attention_heads")  # none in a Mamba
        head = widest(config, "head_dim") or config.hidden_size // max(heads, 1)
        return Dimensions(int(config.hidden_size), int(config.vocab_size), heads * head)

    @property
    def max_length(self) -> int | None:
        return getattr(self.config, "max_position_embeddings", None)

    @cached_property
    def attention_choice(self) -> tuple[str, str]:
        from graftlab.packing.attention import choose_backend

        if self.attention == "own":
            return "own", "the model's own, one document after the other"
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
        return cast("nn.Module", self.model._modules[self._body_name])

    @cached_property
    def _body_name(self) -> str:
        """What the model calls its decoder, which is not always its `base_model_prefix`."""
        from transformers import PreTrainedModel

        children = self.model._modules.items()
        names = [name for name, child in children if isinstance(child, PreTrainedModel)]
        prefix: str = self.model.base_model_prefix
        if prefix in self.model._modules or len(names) != 1:
            return prefix
        return str(names[0])

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder layers, first to last."""
        from torch import nn

        lists = {n: m for n, m in self.body.named_modules() if isinstance(m, nn.ModuleList)}
        for found in lists.values():
            if len(found) == self.config.num_hidden_layers:
                return list(found)
        # Layers of several attentions, or several stacks: whatever stands in an outermost list.
        inner = {name for name in lists for other in lists if name.startswith(f"{other}.")}
        return [layer for name, found in lists.items() if name not in inner for layer in found]

    def hidden(self, batch: Batch) -> Tensor:
        """Final hidden states (1, N, D); documents are isolated by the packed attention.

        Where layers carry state or the attention is the model's own, by computing each document in
        a pass of its own, and each branch of one behind what it continues.
        """
        if not self.stateful_layers and self.attention != "own":
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
        builds a mask of its own that lets packed documents see each other. In its own attention
        the model is given one document, whose positions it counts itself.
        """
        if self.attention == "own":
            output = self.body(input_ids=input_ids, use_cache=False)
            return cast("Tensor", output.last_hidden_state)
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
            self._body_name: _hand_through(self.body),
        }
        return cast("Tensor", head(inputs_embeds=hidden[None], use_cache=False).logits[0])

    def own_logits(self, ids: Tensor) -> Tensor:
        with self.plain():
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits.float()

    def set_checkpointing(self, on: bool) -> None:
        """Recompute each decoder layer in the backward pass, or not; called before training.

        Either way the model is in train mode afterwards: in eval mode, which a loaded model is in,
        transformers ignores the setting and adapter dropout is off. And its norms and MLPs keep
        little, where they are of a kind that can.
        Raises ConfigError where the model cannot recompute.
        """
        from graftlab.models.recompute import keep_little

        if on and not self.model.supports_gradient_checkpointing:
            raise ConfigError(
                f"model.gradient_checkpointing=true: {type(self.model).__name__} cannot recompute "
                "its layers. Leave it out."
            )
        if on:
            self.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
            # Transformers also makes the embeddings require gradients, for the reentrant kind:
            # that would run the backward pass through every layer below the first adapter.
            self.model.disable_input_require_grads()
        else:
            self.model.activation_checkpointing_disable()
        keep_little(self)
        self.model.train()

    def reset(self) -> None:
        from graftlab.models.recompute import restore_modules

        super().reset()
        restore_modules(self)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Inside, lean copies are kept, and weights stored as codes are wide where there is room:
        every token of a reply would widen all of them.
        """
        from graftlab.models.quantization.weight import widened

        wide = widened(self.model) if not self._answering and self._has_room() else nullcontext()
        self._answering += 1
        try:
            with wide:
                yield
        finally:
            self._answering -= 1
            if not self._answering:
                self._store = None

    def _has_room(self) -> bool:
        """Whether all weights, widened, take at most half of the memory that is free."""
        import torch

        on_gpu = self.device.type == "cuda"
        free = torch.cuda.mem_get_info(self.device)[0] if on_gpu else free_memory_bytes()
        return 2 * self.num_parameters * self.dtype.itemsize <= free

    def slots(self, count: int) -> Slots | None:
        from graftlab.models.slots import Slots

        weights = self._lean_weights()
        return None if weights is None else Slots(weights, count=count, limit=self.max_length)

    def _lean_weights(self) -> LeanWeights | None:
        """The weights as slots multiply with them, kept as long as somebody is `answering`."""
        from graftlab.models.lean_weights import LeanStore

        if not self._answering:
            return None
        self._store = self._store or LeanStore()
        return self._store.of(self.model)

    def context(self, *, padding: Tensor | None = None, rewind: bool = False) -> Context:
        from graftlab.models.hf_context import HFContext
        from graftlab.models.slots import SlotContext

        if (weights := self._lean_weights()) is not None:
            return SlotContext(weights, limit=self.max_length, padding=padding)
        return HFContext(self, stock=self.plain, padding=padding, rewind=rewind)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Stock attention, eager and in eval mode: what `model.generate` with a KV cache needs."""
        import torch

        from graftlab.models.from_pretrained import stock_attention

        packed = self.model.config._attn_implementation
        switched = bool(self.dimensions.attention_width) and self.attention != "own"
        if switched:
            self.model.set_attn_implementation(stock_attention(self.model))
        try:
            with self.evaluating(), torch.compiler.set_stance("force_eager"):
                yield
        finally:
            if switched:
                self.model.set_attn_implementation(packed)


def _hand_through(body: nn.Module) -> nn.Module:
    """A body whose final hidden states are the embeddings it is given."""
    from torch import nn
    from transformers import PreTrainedModel

    class HandThrough(nn.Module):
        def forward(self, *_: Any, inputs_embeds: Tensor | None = None, **__: Any) -> _Output:
            if inputs_embeds is None:
                raise TypeError("the head cannot be computed apart from the body")
            return _Output(inputs_embeds)

        def __getattr__(self, name: str) -> Any:
            found = getattr(body, name)  # such as a factor that its head multiplies with
            return self if isinstance(found, PreTrainedModel) else found  # or OPT's inner decoder

    return HandThrough()


class _Output:
    """What a head reads of its body: the hidden states. All else that it copies is None."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
