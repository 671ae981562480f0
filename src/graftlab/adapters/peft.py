"""LoRA, DoRA and rsLoRA through PEFT: the schema, and how an adapter gets onto a base."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, ModelError, require_choice, require_range

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from graftlab.adapters.base import Adapter
    from graftlab.adapters.store import AdapterSource
    from graftlab.models.base import Base

INITS = ("default", "gaussian", "orthogonal")
TARGETS = ("attn", "attn-mlp", "all-linear", "auto")
REWRITING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica", "eva")
"""PEFT inits that rewrite the base's weights, or need data to be drawn."""


@dataclass(kw_only=True, slots=True)
class Lora:
    """`lora=attn|attn-mlp|all-linear|dora|rslora|full`: which weights are trained, and how.

    LoRA: arXiv 2106.09685; rsLoRA: 2312.03732; DoRA: 2402.09353.
    """

    rank: int = 16
    """Rank of the update; the adapter's size grows linearly with it."""
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
    """default, gaussian or orthogonal: the inits that leave the base exactly as it was."""
    targets: Any = "attn-mlp"
    """attn, attn-mlp, all-linear, auto, or a list of module names such as [q_proj, v_proj]."""
    layers: int | None = None
    """Adapt only the last N decoder layers; null for all."""
    modules_to_save: list[str] = field(default_factory=list)
    """Modules trained in full and saved with the adapter, such as [lm_head]."""
    seed: int | None = None
    """Seed of the initialisation; null takes the run's seed."""
    from_run: str | None = None
    """Continue the adapter of this run, adapter folder or checkpoint (`lora.from` when typed)."""
    full: bool = False
    """Train every weight of the model instead of an adapter; the keys above do not count then."""

    def __post_init__(self) -> None:
        require_range("lora.rank", self.rank, least=1)
        require_range("lora.alpha", self.alpha, above=0)
        require_range("lora.scale", self.scale, above=0)
        require_range("lora.dropout", self.dropout, least=0, most=0.99)
        require_range("lora.layers", self.layers, least=1)
        require_range("lora.seed", self.seed, least=0)
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
                f"lora.init={self.init} rewrites the base's weights (or fits them to data), so the "
                "base would no longer be the reference the adapter is compared with and shipped "
                f"for. Use one of {', '.join(INITS)}."
            )
        require_choice("lora.init", self.init, INITS)
        if self.init == "orthogonal" and self.rank % 2:
            raise ConfigError(f"lora.init=orthogonal needs an even lora.rank, not {self.rank}.")

    def _check_full(self) -> None:
        """Refuse what would be ignored without a word."""
        given = {
            "dropout": self.dropout > 0,
            "dora": self.dora,
            "rslora": self.rslora,
            "layers": self.layers is not None,
            "modules_to_save": bool(self.modules_to_save),
        }
        unused = [f"lora.{name}" for name, is_given in given.items() if is_given]
        if self.full and unused:
            raise ConfigError(
                f"lora=full trains every weight as it is: leave out {', '.join(unused)}."
            )

    @property
    def effective_alpha(self) -> float:
        """The alpha PEFT is given."""
        return self.alpha if self.alpha is not None else (self.scale or 2.0) * self.rank


def attach(base: Base, lora: Lora, *, seed: int, dtype: torch.dtype) -> Adapter:
    """A new adapter on `base`, its weights in `dtype`; with `lora.from_run`, that one's weights.

    Initial values depend on the seed (`lora.seed`, else `seed`) and on each module's own name, not
    on other modules, the device or any global random state. Raises ConfigError when the targets
    match nothing or the adapter to continue is of another make.
    """
    from graftlab.adapters import full
    from graftlab.adapters.initial import initialise
    from graftlab.adapters.store import find_adapter

    if lora.full:
        return full.attach(base, lora, dtype=dtype)
    source = find_adapter(lora.from_run) if lora.from_run else None
    if source is not None and source.base_fingerprint() not in (None, base.fingerprint):
        raise ConfigError(
            f"lora.from={lora.from_run} was trained on another base than {base.name}."
        )
    config = peft_config(base, lora)
    if source is not None:
        _require_same_make(lora, config, source)
    adapter = _inject(base, config, dtype=dtype)
    initialise(adapter, lora.init, seed=seed if lora.seed is None else lora.seed)
    if source is not None:
        _fill(adapter, source)
    return adapter


def load_adapter(base: Base, source: AdapterSource, *, dtype: torch.dtype | None = None) -> Adapter:
    """A trained adapter on `base`, its weights in `dtype` (default fp32).

    Raises ModelError for anything but a LoRA adapter that leaves the base as it was, and for one
    that does not fit this base.
    """
    import torch
    from peft import LoraConfig, PeftConfig

    from graftlab.adapters import full
    from graftlab.adapters.store import FULL

    if source.config().get("format") == FULL:
        return full.load(base, source, dtype=dtype)
    config = PeftConfig.from_peft_type(**source.config())
    if not isinstance(config, LoraConfig):
        raise ModelError(f"{source.folder}: {config.peft_type} adapters are not supported.")
    if str(config.init_lora_weights).split("_niter_")[0].lower() in REWRITING_INITS:
        raise ModelError(
            f"{source.folder} was initialised with {config.init_lora_weights}: it belongs to a "
            "rewritten base. Convert it to plain LoRA with PEFT first."
        )
    config.inference_mode = False
    try:
        adapter = _inject(base, config, dtype=dtype or torch.float32)
    except ConfigError as error:
        raise ModelError(f"{source.folder} does not fit {base.name}: {error}") from error
    _fill(adapter, source)
    return adapter


def peft_config(base: Base, lora: Lora) -> LoraConfig:
    """What PEFT is told; the targets are resolved for the base's architecture."""
    from peft import LoraConfig

    from graftlab.adapters.targets import resolve_targets

    targets = resolve_targets(base.folder, lora)
    return LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.source,
        r=lora.rank,
        # PEFT's own files hold an integer wherever alpha is one.
        lora_alpha=_integer_if_whole(lora.effective_alpha),
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        init_lora_weights=True if lora.init == "default" else lora.init,
        target_modules=targets.modules,
        layers_to_transform=targets.layers,
        modules_to_save=list(lora.modules_to_save) or None,
        bias="none",
    )


def _inject(base: Base, config: LoraConfig, *, dtype: torch.dtype) -> Adapter:
    import torch
    from peft import inject_adapter_in_model

    from graftlab.adapters.base import Adapter, restore_modules

    assert base.adapter is None, "this base already carries an adapter; detach it first"
    originals = dict(base.model.named_modules())
    # PEFT draws initial values of its own from the global random state.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # A head tied to the embedding is adapted alone: plain PEFT loads it the same way.
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        try:
            inject_adapter_in_model(config, base.model)
        except (ValueError, TypeError) as error:
            restore_modules(base.model, originals)
            raise ConfigError(f"lora.targets={config.target_modules}: {error}") from error
    return Adapter(base, config, originals=originals, dtype=dtype)


def _fill(adapter: Adapter, source: AdapterSource) -> None:
    """The source's weights into `adapter`, or a clean base and a ModelError."""
    try:
        adapter.load_state_dict(source.tensors())
    except ModelError as error:
        adapter.detach()
        raise ModelError(f"{source.folder} does not fit {adapter.base.name}: {error}") from error


def _require_same_make(lora: Lora, config: LoraConfig, source: AdapterSource) -> None:
    """Raise ConfigError naming every key in which the adapter to continue differs."""
    theirs = source.config()
    asked: dict[str, tuple[str, Any]] = {
        "r": ("lora.rank", config.r),
        "lora_alpha": ("lora.alpha", config.lora_alpha),
        "use_dora": ("lora.dora", config.use_dora),
        "use_rslora": ("lora.rslora", config.use_rslora),
        "target_modules": ("lora.targets", config.target_modules),
        "layers_to_transform": ("lora.layers", config.layers_to_transform),
        "modules_to_save": ("lora.modules_to_save", config.modules_to_save),
    }
    wrong = [
        f"{key}: asked {_plain(ours)}, it has {_plain(theirs.get(field))}"
        for field, (key, ours) in asked.items()
        if _plain(ours) != _plain(theirs.get(field))
    ]
    if wrong:
        raise ConfigError(
            f"lora.from={lora.from_run} is of another make and cannot be continued exactly. "
            "Set the same values: " + "; ".join(wrong) + "."
        )


def _plain(value: Any) -> Any:
    if isinstance(value, (set, list, tuple)):
        return sorted(value) or None
    return _integer_if_whole(value) if isinstance(value, float) else value


def _integer_if_whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
