"""What a base looks like, said without its files: enough to count every weight of a plain decoder.

    embedding (V, D)   layers x [q k v o | gate up down | norms]   norm   head (V, D) unless tied

A hub model that is not on this machine can be planned from these published numbers alone. Names
are those of a Llama, so that `lora.targets` finds its modules as it would in the real files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from graftlab.errors import ConfigError, require_range

REQUIRED = ("hidden_size", "layers", "heads", "feed_forward", "vocab_size")

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""


class Published(Protocol):
    """A model's weights and sizes, known without files of Hugging Face's."""

    def config(self) -> dict[str, Any]:
        """Its sizes, under the names of a `config.json`."""

    def tensors(self) -> Shapes:
        """Every weight by name."""


@dataclass(kw_only=True, slots=True)
class Architecture:
    """`model.architecture`: used by `graftlab plan` where neither weights nor config.json are."""

    hidden_size: int | None = None
    """Width of the residual stream."""
    layers: int | None = None
    """Decoder layers."""
    heads: int | None = None
    """Query heads."""
    key_heads: int | None = None
    """Key and value heads; null for as many as query heads."""
    head_dim: int | None = None
    """Width of a head; null for hidden_size / heads."""
    feed_forward: int | None = None
    """Width of the MLP."""
    vocab_size: int | None = None
    """Rows of the embedding."""
    tied: bool = False
    """Whether head and embedding are one matrix."""
    qkv_bias: bool = False
    """Whether query, key and value projections have biases."""
    qk_norm: bool = False
    """Whether queries and keys are normalised."""
    reused_layers: int = 0
    """Last layers that reuse keys and values of an earlier one, and so have no k and v."""

    def __post_init__(self) -> None:
        for name in (*REQUIRED, "key_heads", "head_dim"):
            require_range(f"model.architecture.{name}", getattr(self, name), least=1)
        require_range("model.architecture.reused_layers", self.reused_layers, least=0)
        missing = [name for name in REQUIRED if getattr(self, name) is None]
        if 0 < len(missing) < len(REQUIRED):
            raise ConfigError(
                "model.architecture is incomplete: give model.architecture."
                f"{', model.architecture.'.join(missing)} as well."
            )

    @property
    def known(self) -> bool:
        """Whether there is anything to count."""
        return self.hidden_size is not None

    def config(self) -> dict[str, Any]:
        """The same under the names of a `config.json`."""
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads or self.heads,
            "head_dim": self.head_dim or (self.hidden_size or 0) // (self.heads or 1),
            "intermediate_size": self.feed_forward,
            "vocab_size": self.vocab_size,
            "tie_word_embeddings": self.tied,
            "use_qk_norm": self.qk_norm,
        }

    def tensors(self) -> Shapes:
        """Every weight by name, as a file of this architecture would list them."""
        hidden, layers, vocab = map(self._size, ("hidden_size", "layers", "vocab_size"))
        shapes: Shapes = {
            "model.embed_tokens.weight": (vocab, hidden),
            "model.norm.weight": (hidden,),
        }
        if not self.tied:
            shapes["lm_head.weight"] = (vocab, hidden)
        for number in range(layers):
            reuses = number >= layers - self.reused_layers
            layer = self._layer(reuses=reuses)
            shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
        return shapes

    def _size(self, name: str) -> int:
        value: int | None = getattr(self, name)
        assert value is not None, "an architecture is counted only when it is known"
        return value

    def _layer(self, *, reuses: bool) -> Shapes:
        hidden, heads, inner = map(self._size, ("hidden_size", "heads", "feed_forward"))
        head = self.head_dim or hidden // heads
        widths = {"q": heads * head}
        if not reuses:
            widths |= dict.fromkeys(("k", "v"), (self.key_heads or heads) * head)
        shapes: Shapes = {}
        for name, width in widths.items():
            shapes[f"self_attn.{name}_proj.weight"] = (width, hidden)
            if self.qkv_bias:
                shapes[f"self_attn.{name}_proj.bias"] = (width,)
            if self.qk_norm and name != "v":
                shapes[f"self_attn.{name}_norm.weight"] = (head,)
        shapes["self_attn.o_proj.weight"] = (hidden, heads * head)
        shapes |= {f"mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        shapes["mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
        return shapes
