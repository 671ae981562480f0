"""What is trainable: the schema of `lora=...`, the same for every kind of base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graftlab.errors import (
    AUTO,
    ConfigError,
    WholeOrAuto,
    number_or_auto,
    require_choice,
    require_range,
)

INITS = ("default", "gaussian", "orthogonal", "eva")
TARGETS = ("attn", "attn-mlp", "all-linear", "auto")
REWRITING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
"""Inits (PEFT's names) that rewrite the base's weights."""


@dataclass(kw_only=True, slots=True)
class Lora:
    """`lora=attn|attn-mlp|all-linear|dora|rslora|full`: which weights are trained, and how.

    LoRA: arXiv 2106.09685; rsLoRA: 2312.03732; DoRA: 2402.09353.
    """

    rank: WholeOrAuto = 16
    """Rank of the update: the adapter grows linearly with it; auto: by the number of documents."""
    alpha: float | None = None
    """LoRA alpha; give this or `scale`, not both."""
    scale: float | None = None
    """alpha / rank (default 2.0): stays the same when the rank is swept."""
    dropout: float = 0.0
    """Share of adapter inputs zeroed in training."""
    dora: bool = False
    """Decompose into magnitude and direction (DoRA)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    init: str = "default"
    """default, gaussian, orthogonal or eva (from the data, arXiv 2410.07170): the inits that leave
    the base exactly as it was."""
    targets: Any = "attn-mlp"
    """attn, attn-mlp, all-linear, auto, or a list of module names such as [q_proj, v_proj]."""
    layers: int | None = None
    """Adapt only the last N decoder layers; null for all."""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Other ranks for some modules, by the end of their name or a regex for it, as PEFT reads it:
    {q_proj: 8, "layers.0.mlp.up_proj": 32}. Their alpha stays, unless alpha_pattern says it."""
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    """Other alphas for some modules, named likewise."""
    modules_to_save: list[str] = field(default_factory=list)
    """Modules trained in full and saved with the adapter, such as [lm_head]."""
    trainable_tokens: list[str] = field(default_factory=list)
    """Tokens whose rows of the embedding (and of a head tied to it) are trained, such as
    [<|tool|>]; PEFT's trainable_token_indices."""
    seed: int | None = None
    """Seed of the initialisation; null takes the run's seed."""
    from_run: str | None = None
    """Continue the adapter of this run, adapter folder or checkpoint (`lora.from` when typed)."""
    force: bool = False
    """Take `lora.from` on its own base in another quantization than it was trained on."""
    full: bool = False
    """Train every weight of the model instead of an adapter; the keys above do not count then."""

    def __post_init__(self) -> None:
        self.rank = number_or_auto("lora.rank", self.rank, whole=True)
        require_range("lora.rank", None if self.rank == AUTO else self.rank, least=1)
        require_range("lora.alpha", self.alpha, above=0)
        require_range("lora.scale", self.scale, above=0)
        require_range("lora.dropout", self.dropout, least=0, most=0.99)
        require_range("lora.layers", self.layers, least=1)
        require_range("lora.seed", self.seed, least=0)
        for key, rank in self.rank_pattern.items():
            require_range(f"lora.rank_pattern.{key}", rank, least=1)
        for key, alpha in self.alpha_pattern.items():
            require_range(f"lora.alpha_pattern.{key}", alpha, above=0)
        self._check_init()
        self._check_full()
        if self.alpha is not None and self.scale is not None:
            raise ConfigError("lora.alpha and lora.scale say the same thing twice: give one.")
        if isinstance(self.targets, str):
            require_choice("lora.targets", self.targets, TARGETS)
        elif not self.targets or not all(isinstance(t, str) for t in self.targets):
            raise ConfigError(f"lora.targets must be one of {', '.join(TARGETS)}, or a list.")

    def _check_init(self) -> None:
        if self.init in REWRITING_INITS:
            raise ConfigError(
                f"lora.init={self.init} rewrites the base's weights, so the "
                "base would no longer be the reference the adapter is compared with and shipped "
                f"for. Use one of {', '.join(INITS)}."
            )
        require_choice("lora.init", self.init, INITS)
        ranks = {"lora.rank": self.rank if self.rank != AUTO else 2}
        ranks |= {f"lora.rank_pattern.{key}": rank for key, rank in self.rank_pattern.items()}
        odd = [f"{key}, not {rank}" for key, rank in ranks.items() if rank % 2]
        if self.init == "orthogonal" and odd:
            raise ConfigError(f"lora.init=orthogonal needs an even {', and an even '.join(odd)}.")

    def _check_full(self) -> None:
        """Refuse what would be ignored without a word."""
        given = {
            "dropout": self.dropout > 0,
            "dora": self.dora,
            "rslora": self.rslora,
            "layers": self.layers is not None,
            "rank_pattern": bool(self.rank_pattern),
            "alpha_pattern": bool(self.alpha_pattern),
            "modules_to_save": bool(self.modules_to_save),
            "trainable_tokens": bool(self.trainable_tokens),
        }
        unused = [f"lora.{name}" for name, is_given in given.items() if is_given]
        if self.full and unused:
            raise ConfigError(
                f"lora=none trains every weight as it is: leave out {', '.join(unused)}."
            )

    @property
    def effective_alpha(self) -> float:
        """The alpha that the adapter is made with."""
        alpha: float = self.alpha if self.alpha is not None else (self.scale or 2.0) * self.rank
        return alpha
