"""What is exported: a trained adapter's weights, scale and origin, whatever base it is for.

An adapter for Apple's model has tamm's names (`...a_transpose`), from a run or from a checkpoint of
the toolkit; one for a Hugging Face model has PEFT's (`...lora_A.weight`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.artifact import base_of, find_artifact
from graftlab.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.adapters.store import AdapterSource
    from graftlab.models.base import ModelSpec

TOOLKIT_SCALE = 0.5
"""alpha / rank of every adapter that the toolkit trains; its checkpoints do not say."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained adapter, read into memory."""

    path: Path
    """The adapter folder or checkpoint."""
    state: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    """What `adapter_config.json` holds; {} for a checkpoint of the toolkit."""
    base: Path | None = None
    """The folder of the base it was trained on, where that is known and there."""
    whole: Path | None = None
    """The folder of a whole model, trained in all its weights; `state` is empty then."""

    @property
    def is_afm(self) -> bool:
        """Whether it belongs to Apple's model; else its names are PEFT's."""
        return any(name.endswith(("a_transpose", "b_transpose")) for name in self.state)

    @property
    def rank(self) -> int:
        """The rank that all its layers have. Raises ModelError when they differ."""
        leaf, axis = ("a_transpose", 1) if self.is_afm else ("lora_A.weight", 0)
        ranks = {tensor.shape[axis] for name, tensor in self.state.items() if name.endswith(leaf)}
        if len(ranks) != 1:
            found = f"of ranks {', '.join(map(str, sorted(ranks)))}" if ranks else "without LoRA"
            raise ModelError(f"{self.path}: an adapter {found} cannot be exported; all need one.")
        return int(ranks.pop())

    @property
    def alpha(self) -> float:
        """The alpha it was trained with: LoRA's update is multiplied by alpha / rank."""
        told = self.config.get("alpha", self.config.get("lora_alpha"))
        return float(told) if told is not None else TOOLKIT_SCALE * self.rank

    @property
    def scale(self) -> float:
        """What LoRA's update is multiplied by."""
        root = self.rank**0.5 if self.config.get("use_rslora") else self.rank
        return self.alpha / root

    def require_adapter(self, target: str) -> None:
        """Raise ModelError for a whole model."""
        if self.whole is not None:
            raise ModelError(
                f"{self.path} is a whole model, not an adapter: target=mlpackage takes it, "
                f"target={target} does not."
            )

    def require_afm(self, target: str) -> None:
        """Raise ModelError unless it is an adapter for Apple's model."""
        self.require_adapter(target)
        if not self.is_afm:
            base = self.config.get("base_model_name_or_path") or "a Hugging Face model"
            raise ModelError(
                f"{self.path} was trained on {base}, and target={target} is for adapters of "
                "Apple's foundation model alone. target=peft and target=mlx take it."
            )


def load(adapter: str, model: ModelSpec | None = None) -> Trained:
    """The adapter that `adapter` names: a run, an adapter folder, a checkpoint of ours or theirs.

    `model` is the base it belongs to, where the run does not say or it lies elsewhere now. Raises
    ModelError saying what was looked for, or what is wrong with the file. A run that trained all
    weights, and a model folder, give a whole model.
    """
    from graftlab.adapters.features import refuse_features

    found = find_artifact(adapter)
    if found.whole is not None:
        return Trained(Path(adapter).expanduser(), {}, whole=found.place)
    source = found.require_adapter()
    config = source.config()
    if "peft_type" in config:
        refuse_features(config, source.folder)
    return Trained(source.path, source.tensors(), config, _base(source, model))


def draft_state(path: Path) -> dict[str, Tensor]:
    """All weights of a draft of Apple's kind: a run, a folder like the toolkit's, or a .pt file.

    Raises ModelError for another model and for a missing or damaged file.
    """
    from graftlab.apple.files import find_assets, read_weights

    if path.is_file():
        return read_weights(path)  # of others: ours are folders
    try:
        found = find_artifact(str(path))
    except ModelError as error:
        raise ModelError(f"draft={path}: {error}") from error
    if found.whole is None:
        raise ModelError(f"draft={path}: there is no model, as a run with lora=full leaves it.")
    folder = found.place
    if (folder / "config.json").is_file():
        raise ModelError(
            f"draft={path} is a model of transformers, and Apple's runtime takes drafts of Apple's "
            "architecture alone. target=mlpackage takes it."
        )
    return read_weights(find_assets(folder).weights)


def described(base: Path | None) -> dict[str, Any] | None:
    """What a folder of toolkit assets tells tamm of its model; None when it is no such folder."""
    from graftlab.apple.files import find_assets, read_plain

    if base is None:
        return None
    try:
        return read_plain(find_assets(base).config)
    except ModelError:
        return None


def heads_of(base: Path | None) -> int | None:
    """The number of query heads of the model in a folder of toolkit assets; None without one."""
    content = described(base)
    return None if content is None else int(content.get("num_heads", 16))


def _base(source: AdapterSource, given: ModelSpec | None) -> Path | None:
    """The base's folder; None when it is not known or not there."""
    if given is not None:
        given.check()
        return given.folder()
    try:
        return base_of(source, advice="give model=hf model.path=DIR").folder()
    except (ConfigError, ModelError):
        return None
