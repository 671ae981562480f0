"""LoRA, DoRA and rsLoRA through PEFT: how an adapter gets onto a Hugging Face base."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from graftlab.adapters.features import refuse_features, refuse_tensors
from graftlab.adapters.lora import Lora
from graftlab.adapters.patterns import token_ids
from graftlab.adapters.renamed import names_lost_on_loading, names_taken_for_experts
from graftlab.adapters.targets import Modules, modules_in, targets_in
from graftlab.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from torch import nn

    from graftlab.adapters.peft_adapter import PeftAdapter
    from graftlab.adapters.store import AdapterSource
    from graftlab.models.hf_base import HFBase


def attach(base: HFBase, lora: Lora, *, seed: int, dtype: torch.dtype) -> PeftAdapter:
    """A new adapter on `base`, its weights in `dtype`; with `lora.from_run`, that one's weights.

    Initial values depend on the seed (`lora.seed`, else `seed`) and on each module's own name, not
    on other modules, the device or any global random state. Raises ConfigError when the targets
    match nothing or the adapter to continue is of another make.
    """
    from graftlab.adapters.artifact import find_start
    from graftlab.adapters.initial import initialise

    source = find_start(lora, base)
    config = peft_config(base, lora)
    if source is not None:
        _require_same_make(lora, config, source)
    adapter = _inject(base, config, dtype=dtype)
    initialise(adapter, lora.init, seed=seed if lora.seed is None else lora.seed)
    if source is not None:
        adapter.fill(source)
    return adapter


def load_adapter(
    base: HFBase, source: AdapterSource, *, dtype: torch.dtype | None = None
) -> PeftAdapter:
    """A trained adapter on `base`, its weights in `dtype` (default fp32).

    Raises ModelError for anything but a LoRA adapter that leaves the base as it was, and for one
    that does not fit this base.
    """
    adapter = place_adapter(base, source, dtype=dtype)
    adapter.fill(source)
    return adapter


def place_adapter(
    base: HFBase, source: AdapterSource, *, dtype: torch.dtype | None = None
) -> PeftAdapter:
    """As `load_adapter`, but for its weights, which are drawn and not those in `source`."""
    import torch
    from peft import PeftConfig

    content = source.config()
    if "peft_type" not in content:
        raise ModelError(
            f"{source.path} is not in PEFT's format ({content.get('format', 'no peft_type')}): "
            f"{base.name} takes LoRA adapters written by PEFT or graftlab for such a base."
        )
    refuse_features(content, source.folder)
    refuse_tensors(source.tensors(), source.folder)
    try:
        with warnings.catch_warnings():  # of fields of a newer PEFT, which hold nothing here
            warnings.filterwarnings("ignore", message="Unexpected keyword arguments")
            config: Any = PeftConfig.from_peft_type(**content)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{source.folder}: its adapter_config.json is damaged: {error}") from error
    config.inference_mode = False
    try:
        return _inject(base, config, dtype=dtype or torch.float32)
    except ConfigError as error:
        raise ModelError(f"{source.folder} does not fit {base.name}: {error}") from error


def peft_config(base: HFBase, lora: Lora) -> LoraConfig:
    """What PEFT is told; the targets are resolved among the base's modules, as they are loaded."""
    from peft import LoraConfig

    targets = targets_in(_modules_of(base), lora)
    return LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.source,
        r=lora.rank,
        # PEFT's own files hold an integer wherever alpha is one.
        lora_alpha=_integer_if_whole(lora.effective_alpha),
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        init_lora_weights=True if lora.init in ("default", "eva") else lora.init,
        target_modules=targets.modules,
        layers_to_transform=targets.layers,
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern={k: _integer_if_whole(v) for k, v in lora.alpha_pattern.items()},
        modules_to_save=list(lora.modules_to_save) or None,
        trainable_token_indices=token_ids(base.folder, lora.trainable_tokens) or None,
        bias="none",
    )


def _modules_of(base: HFBase) -> Modules:
    """Its matrices; transformers gives some other names than their files do."""
    config = base.config.to_dict()
    shapes = {name: tuple(p.shape) for name, p in base.model.named_parameters()}
    tied = bool(getattr(base.config, "tie_word_embeddings", False))
    modules = modules_in(shapes, tied=tied, taken=names_taken_for_experts(config))
    lost = names_lost_on_loading(base.model, modules.inside)
    lost |= {name for name in modules.inside if not _is_linear(base.model.get_submodule(name))}
    return modules.without(lost) if lost else modules


def _is_linear(module: nn.Module) -> bool:
    """Whether it maps vectors one by one, to which A and B can add: DeepSeek V4 groups its."""
    import torch

    if type(module).forward is torch.nn.Linear.forward or not isinstance(module, torch.nn.Linear):
        return True  # others than Linear are known to PEFT, or refused by it
    with torch.no_grad():
        try:
            out = module(module.weight.new_zeros(1, 1, module.in_features))
        except RuntimeError:
            return False
    return bool(out.shape == (1, 1, module.out_features))


def _inject(base: HFBase, config: LoraConfig, *, dtype: torch.dtype) -> PeftAdapter:
    import torch
    from peft import inject_adapter_in_model

    from graftlab.adapters.base import restore_modules
    from graftlab.adapters.peft_adapter import PeftAdapter

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
    return PeftAdapter(base, config, originals=originals, dtype=dtype)


def _require_same_make(lora: Lora, config: LoraConfig, source: AdapterSource) -> None:
    """Raise ConfigError naming every key in which the adapter to continue differs."""
    theirs = source.config()
    try:
        refuse_features(theirs, source.folder, to_train=True)
    except ModelError as error:
        raise ConfigError(f"lora.from={lora.from_run}: {error}") from error
    asked: dict[str, tuple[str, Any]] = {
        "r": ("lora.rank", config.r),
        "lora_alpha": ("lora.alpha", config.lora_alpha),
        "use_dora": ("lora.dora", config.use_dora),
        "use_rslora": ("lora.rslora", config.use_rslora),
        "target_modules": ("lora.targets", config.target_modules),
        "layers_to_transform": ("lora.layers", config.layers_to_transform),
        "rank_pattern": ("lora.rank_pattern", config.rank_pattern),
        "alpha_pattern": ("lora.alpha_pattern", config.alpha_pattern),
        "modules_to_save": ("lora.modules_to_save", config.modules_to_save),
        "trainable_token_indices": ("lora.trainable_tokens", config.trainable_token_indices),
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
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in sorted(value.items())} or None
    if isinstance(value, (set, list, tuple)):
        return sorted(value) or None
    return _integer_if_whole(value) if isinstance(value, float) else value


def _integer_if_whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
