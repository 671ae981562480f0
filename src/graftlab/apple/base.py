"""Apple's on-device model as a base: tamm's module with our packed attention."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError, listed
from graftlab.models.base import Base
from graftlab.models.dimensions import Dimensions
from graftlab.models.weights import misfits

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from graftlab.apple.attention import PackedSDPA
    from graftlab.apple.context import AFMContext
    from graftlab.apple.files import Assets
    from graftlab.types import Batch

CONTEXT = 4096
"""Tokens of a conversation that the system's runtime takes; the model's files do not say."""


class AFMBase(Base):
    """A `CausalLMTransformer` of tamm, every adaptable layer wrapped (`.wrapped.` in its names).

    The KV quantisers are part of the base: their observers are off whatever mode the model is in,
    as an adapter checkpoint could not carry what they would learn.
    """

    model: Any

    def __init__(self, model: nn.Module, **names: Any) -> None:
        from graftlab.apple.attention import pack
        from graftlab.apple.rotary import turn_faster

        super().__init__(model, **names)
        turn_faster(model)
        self._attention: list[PackedSDPA] = pack(model)
        quantizers: list[Any] = [m for m in model.modules() if hasattr(m, "is_observer_enabled")]
        for quantizer in quantizers:
            quantizer.is_observer_enabled = False

    def save_model(self, folder: Path) -> None:
        from graftlab.apple.files import find_assets, write_assets

        write_assets(folder, self.model.state_dict(), config=find_assets(self.folder).config)

    @property
    def dimensions(self) -> Dimensions:
        vocabulary, hidden = self.model.output_transform.weight.shape
        return Dimensions(hidden, vocabulary, self._head_width * self._attention[0].own.num_heads)

    @property
    def max_length(self) -> int:
        return CONTEXT

    @property
    def _head_width(self) -> int:
        return int(self.model.positional_encoding.dim_per_head)

    @cached_property
    def attention_choice(self) -> tuple[str, str]:
        from graftlab.packing.attention import choose_backend

        sizes = SimpleNamespace(head_dim=self._head_width)
        backend, reason = choose_backend(self.attention, self.device, self.dtype, sizes)
        for layer in self._attention:
            layer.backend = backend
        return backend, reason

    @property
    def layers(self) -> list[Any]:
        from tamm.layers import TransformerLayer

        return [module for module in self.model.modules() if isinstance(module, TransformerLayer)]

    @property
    def num_regular_layers(self) -> int:
        """Layers with keys and values of their own; those behind reuse the last one's."""
        from tamm.layers import KVReuseTransformerLayerSequence

        layers = self.model.layers
        reuses = isinstance(layers, KVReuseTransformerLayerSequence)
        return int(layers.segment_0.num_layers if reuses else layers.num_layers)

    def hidden(self, batch: Batch) -> Tensor:
        from graftlab.apple.attention import as_mask

        assert self.backend, "chosen before the first pass"
        outputs = self.model(
            batch.input_ids,
            positions=batch.positions,
            attention_mask=as_mask(batch.boundaries, batch.parents),
            mode="SKIP_OUTPUT_LAYER",
        )
        hidden: Tensor = outputs.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.output_transform(hidden)
        return logits

    def context(self, *, padding: Tensor | None = None, rewind: bool = False) -> AFMContext:
        from graftlab.apple.context import AFMContext

        # It can always be cropped.
        return AFMContext(self, self.num_regular_layers, padding=padding)

    def set_checkpointing(self, on: bool) -> None:
        for layer in self.layers:
            if on:  # adapter dropout is keyed: no generator state needs keeping
                layer.checkpoint_activations(preserve_rng_state=False, use_reentrant=False)
            else:
                layer.store_activations()
        self.model.train()


def load_model(assets: Assets, *, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The base of `assets` without adapters, mapped from its file where nothing is to be cast.

    The model is made without memory and takes each tensor over as it is read, so there is never a
    second copy. Raises ModelError naming the tensors that do not fit the config.
    """
    from graftlab.apple.files import create_on_meta, read_config, read_weights
    from graftlab.models.pages import MappedFile

    model: nn.Module = create_on_meta(read_config(assets.config))
    state: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}  # embedding and head are one tensor under two names
    stored = read_weights(assets.weights)
    file = MappedFile(assets.weights)
    for name, tensor in stored.items():
        if ".adapters." in name:  # the toolkit's file holds a fresh one, whose B is zero
            if name.endswith("b_transpose") and tensor.any():
                raise ModelError(
                    f"{assets.weights} holds a trained adapter ({name} is not zero), which would "
                    "be left out: give the toolkit's own base-model.pt, the adapter by lora.from=."
                )
            continue
        # tamm normalises and quantises in fp32, and those vectors are small: they stay in it.
        place = tensor.data_ptr()
        if place not in copies or copies[place].shape != tensor.shape:
            wanted = dtype if tensor.ndim > 1 else tensor.dtype
            copies[place] = file.copy(tensor, device, wanted)
        state[name] = copies[place]
    model_names = model.state_dict()
    state = _wrapped(state, model_names)
    _require_fit(state, model_names, assets)
    model.load_state_dict(state, strict=True, assign=True)
    model.requires_grad_(False)
    return model


def _wrapped(state: dict[str, Tensor], wanted: dict[str, Any]) -> dict[str, Tensor]:
    """`state` under the names of a wrapped model, whether it was saved from one or not."""
    plain = {name.replace(".wrapped.", "."): name for name in wanted}
    return {plain.get(name.replace(".wrapped.", "."), name): t for name, t in state.items()}


def _require_fit(state: dict[str, Tensor], wanted: dict[str, Any], assets: Assets) -> None:
    if problems := misfits(state, {name: tensor.shape for name, tensor in wanted.items()}):
        raise ModelError(
            f"{assets.weights} is not the model that {assets.config.name} describes: "
            f"{listed(problems, 3, '; ')}."
        )
