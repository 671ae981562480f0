"""What is exported: a trained adapter's weights, scale and origin, whatever base it is for.

An adapter for a Hugging Face model has PEFT's names (`...lora_A.weight`); for another library's, a
class of its own is registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.origin import stored_as
from graftlab.errors import ConfigError, ModelError
from graftlab.registry import load_rooms

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.adapters.artifact import Artifact, TrainedModel
    from graftlab.models.base import ModelSpec


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained adapter, read into memory."""

    path: Path
    """The adapter folder or checkpoint."""
    state: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    """What `adapter_config.json` holds; {} where there is none."""
    base: Path | None = None
    """The folder of the base it was trained on, where that is known and there."""
    whole: Path | None = None
    """The folder of a whole model, trained in all its weights; `state` is empty then."""
    stored: str = ""
    """In how many bits its base was stored, such as `nf4`; '' where in none fewer."""
    on_base: TrainedModel | None = None
    """It and its base, as training loads them, where the base is known and there."""

    rank_axis: ClassVar[tuple[str, int]] = ("lora_A.weight", 0)
    """The end of the names of matrices that have the rank on this axis."""
    for_transformers: ClassVar[bool] = True
    """Whether its base is a model of transformers, and its tensors have PEFT's names."""
    targets: ClassVar[tuple[str, ...]] = (
        "peft",
        "mlx",
        "merged",
        "gguf",
        "gguf-lora",
        "ollama",
        "vllm",
        "hub",
        "mlpackage",
    )
    """The formats that there are for it."""

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether an adapter with these weights is of this class."""
        return True

    @property
    def ranks(self) -> list[int]:
        """The ranks that its layers have, sorted."""
        leaf, axis = self.rank_axis
        return sorted({int(t.shape[axis]) for name, t in self.state.items() if name.endswith(leaf)})

    @property
    def rank(self) -> int:
        """The rank that all its layers have. Raises ModelError when they differ."""
        ranks = self.ranks
        if len(ranks) != 1:
            found = f"of ranks {', '.join(map(str, ranks))}" if ranks else "without LoRA"
            raise ModelError(f"{self.path}: an adapter {found} cannot be exported; all need one.")
        return ranks[0]

    @property
    def alpha(self) -> float:
        """The alpha it was trained with: LoRA's update is multiplied by alpha / rank."""
        told = self.config.get("alpha", self.config.get("lora_alpha"))
        return float(told) if told is not None else self.usual_alpha

    @property
    def usual_alpha(self) -> float:
        """The alpha where `config` does not say it; here PEFT's default."""
        return 8.0

    @property
    def scale(self) -> float:
        """What LoRA's update is multiplied by."""
        root = self.rank**0.5 if self.config.get("use_rslora") else self.rank
        return self.alpha / root

    def notes(self) -> list[str]:
        """What is to be known before it is put onto a base."""
        if not self.stored:
            return []
        return [
            f"it was trained on its base stored in {self.stored}, and makes up for that rounding: "
            "it belongs to those codes, and not to the full-precision weights"
        ]

    def require_adapter(self, target: str) -> None:
        """Raise ModelError for a whole model."""
        if self.whole is not None:
            raise ModelError(
                f"{self.path} is a whole model, not an adapter: target={target} takes "
                "adapters alone."
            )

    def require_transformers(self, target: str) -> None:
        """Raise ModelError for a whole model, and for an adapter of another library's base."""
        self.require_adapter(target)
        if not self.for_transformers:
            raise ModelError(
                f"{self.path} is no adapter for a model of transformers, and target={target} takes "
                f"those alone. For its base there are {', '.join(self.targets)}."
            )


_KINDS: list[type[Trained]] = []


def register_trained(kind: type[Trained]) -> None:
    """Let adapters that `kind` recognises be of that class."""
    _KINDS.append(kind)


def load(adapter: str, model: ModelSpec | None = None) -> Trained:
    """The adapter that `adapter` names: a run, an adapter folder, a checkpoint of ours or theirs.

    `model` is the base it belongs to, where the run does not say or it lies elsewhere now. Raises
    ModelError saying what was looked for, or what is wrong with the file. A run that trained all
    weights, and a model folder, give a whole model.
    """
    from graftlab.adapters.features import refuse_features

    load_rooms()
    found = find_artifact(adapter)
    if found.whole is not None:
        return Trained(Path(adapter).expanduser(), {}, whole=found.place)
    source = found.require_adapter()
    config = source.config()
    if "peft_type" in config:
        refuse_features(config, source.folder)
    state = source.tensors()
    kind = next((kind for kind in _KINDS if kind.recognises(state)), Trained)
    on_base, folder = _on_base(found, model)
    stored = stored_as(source)
    return kind(
        source.path,
        state,
        config,
        folder,
        stored=stored.title if stored is not None else "",
        on_base=on_base,
    )


def _on_base(found: Artifact, given: ModelSpec | None) -> tuple[TrainedModel | None, Path | None]:
    """The adapter on its base, and the base's folder; None when it is not known or not there."""
    try:
        on_base = found.on_base(given, advice="give model=hf model.path=DIR")
        return on_base, on_base.model.folder()
    except (ConfigError, ModelError):
        if given is not None:
            raise
        return None, None
