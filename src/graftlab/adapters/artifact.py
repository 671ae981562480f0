"""What a path means: a run, an adapter folder, a checkpoint or a whole model.

RUN/                          a run folder: its adapter/ is meant (the best one)
RUN/adapter-final/            an adapter folder, ours or PEFT's
RUN/checkpoints/last.ckpt     a checkpoint; other makes by their endings (`register_checkpoint`)
RUN/ of lora=none             a whole model, which is also what was trained of its base
MODEL/                        a whole model

Every key that takes such a path (`adapter`, `lora.from`, `draft`, `model.of`, `objective.teacher`)
is answered by `find_artifact`; what of it is loaded is a `TrainedModel`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.origin import require_same_base
from graftlab.adapters.store import (
    CONFIG,
    TRAINED_FROM,
    WEIGHTS,
    AdapterSource,
    FolderSource,
    ModelSource,
    checkpoint_kinds,
)
from graftlab.errors import ConfigError, ModelError, did_you_mean
from graftlab.files.paths import relocated
from graftlab.models.base import ModelSpec
from graftlab.models.folder import model_in
from graftlab.models.integrity import require_undamaged
from graftlab.models.trust import UntrustedError, without_trust
from graftlab.registry import restore

if TYPE_CHECKING:
    from graftlab.adapters.lora import Lora
    from graftlab.models.base import Base
    from graftlab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Artifact:
    """What lies at a path: files that are there and undamaged, nothing heavy loaded yet."""

    path: str
    """As it was typed."""
    place: Path
    """The adapter or model folder, or the checkpoint."""
    adapter: AdapterSource | None
    """What was trained of a base; None for a model that names none."""
    whole: ModelSpec | None
    """The whole model; None where a base is needed beside."""

    def require_adapter(self) -> AdapterSource:
        """The adapter. Raises ModelError for a model that was not trained from a base."""
        if self.adapter is None:
            raise ModelError(
                f"{self.path} is a whole model that names no base, where a run, an adapter folder "
                "or a checkpoint is meant."
            )
        return self.adapter

    def on_base(self, base: ModelSpec | None = None, *, advice: str) -> TrainedModel:
        """The adapter on `base`, or on the base that its run names. Raises as `base_of`."""
        adapter = self.require_adapter()
        if base is None:
            base = base_of(adapter, advice=advice)
        else:
            base.check()
        return TrainedModel(self.path, base, adapter)

    def standing_alone(self, base: ModelSpec | None = None, *, advice: str) -> TrainedModel:
        """The whole model; an adapter as `on_base`."""
        if self.whole is None:
            return self.on_base(base, advice=advice)
        self.whole.check()
        return TrainedModel(self.path, self.whole, None)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model to be loaded: a whole one, or a base and the adapter that was trained on it."""

    path: str
    """Where it was found, as it was typed."""
    model: ModelSpec
    adapter: AdapterSource | None
    """None where the model stands by itself."""

    def load_tokenizer(self) -> Tokenizer:
        """The one that it was trained with: the adapter folder's, if it has one."""
        from graftlab.text.tokenizer import holds_tokenizer

        if self.adapter is None:
            return self.model.load_tokenizer()
        folder = self.adapter.folder
        tokenizer = self.model.load_tokenizer(folder if holds_tokenizer(folder) else None)
        if tokenizer.asks_date:
            tokenizer.date = self.adapter.run().get("date")  # as in training
        return tokenizer

    def fingerprint(self) -> str:
        """16 hex digits of base and adapter; another training gives others. Raises ModelError."""
        from graftlab.models.fingerprint import file_digest

        base = self.model.fingerprint()
        if self.adapter is None:
            return base
        content = [base, self.adapter.config(), file_digest(self.adapter.file)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def find_artifact(path: str) -> Artifact:
    """What `path` means, its files checked.

    Raises ModelError saying what was looked for, or naming what is damaged.
    """
    place = Path(path).expanduser()
    found = _at_file(path, place) if place.is_file() else _at_folder(path, place)
    require_undamaged(found.place)
    return found


def trained_model(adapter: str | None, base: ModelSpec | None) -> TrainedModel:
    """The adapter at that path on `base`, or on the base that its run names; `base` without one.

    All files are there; nothing heavy is loaded. Raises ConfigError or ModelError.
    """
    if adapter is not None:
        return find_artifact(adapter).on_base(base, advice="give model=hf model.path=DIR")
    assert base is not None, "the specs of verbs see to it"
    base.check()
    return TrainedModel(base.name, base, None)


def find_start(lora: Lora, base: Base) -> AdapterSource | None:
    """The adapter that `lora.from` names, None without. Raises ConfigError for another base's."""
    if lora.from_run is None:
        return None
    adapter = find_artifact(lora.from_run).require_adapter()
    try:
        require_same_base(
            adapter,
            base.name,
            base.fingerprint,
            as_stored=base.fingerprint_as,
            key="lora.force",
            forced=lora.force,
        )
    except ModelError as error:
        raise ConfigError(f"lora.from={lora.from_run}: {error}") from error
    return adapter


def base_of(
    adapter: AdapterSource,
    *,
    advice: str,
    check: Callable[[ModelSpec], object] = lambda model: model.check(),
) -> ModelSpec:
    """The base that an adapter's `run.yaml` names, without the trust that file may claim.

    `check` asks for the files that are needed of it; `advice` says what helps where it is not
    found. Raises ConfigError or ModelError.
    """
    described = adapter.run().get("model")
    if described is None:
        named = adapter.config().get("base_model_name_or_path")
        raise ConfigError(
            f"{adapter.path} has no run.yaml that says which base it belongs to (its "
            f"adapter_config.json names {named}): {advice}."
        )
    try:
        model = _restored(described)
        check(model)
    except (ConfigError, TypeError, AttributeError) as error:
        raise ModelError(f"the run.yaml of {adapter.path} describes no base: {error}.") from error
    except UntrustedError as error:
        raise ModelError(f"{error} An adapter's run.yaml cannot give that: {advice}.") from error
    except ModelError as error:
        if (moved := _moved_along(adapter, check)) is not None:
            return moved
        raise ModelError(
            f"{error} The adapter was trained on it; if it lies elsewhere now, {advice}."
        ) from error
    return model


def _at_file(path: str, place: Path) -> Artifact:
    if place.name in (CONFIG, WEIGHTS):
        return _at_folder(path, place.parent)
    kinds = checkpoint_kinds()
    if place.suffix not in kinds:
        known = ", ".join(sorted(kinds))
        raise ModelError(f"{path} is neither a folder nor a checkpoint ({known}).")
    file = place.resolve()
    return Artifact(path, file, kinds[place.suffix](file), None)


def _at_folder(path: str, place: Path) -> Artifact:
    if not place.is_dir():
        siblings = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        hint = did_you_mean(place.name, siblings)
        raise ModelError(f"there is no adapter or model at {path}: no such file or folder.{hint}")
    for folder in (place, place / "adapter"):
        adapter: AdapterSource | None = None
        if (folder / CONFIG).is_file():
            adapter = FolderSource(folder.resolve())
        elif (folder / TRAINED_FROM).is_file():
            adapter = ModelSource(folder.resolve())
        whole = model_in(folder)
        if adapter is not None or whole is not None:
            return Artifact(path, adapter.path if adapter else folder, adapter, whole)
    others = sorted(str(p.parent) for p in place.glob(f"*/{CONFIG}"))
    others += sorted(str(p) for p in place.glob("**/*.ckpt"))
    hint = f" It does hold: {', '.join(others[:4])}." if others else ""
    raise ModelError(
        f"{path} holds neither {CONFIG} nor adapter/{CONFIG}, and no model's config.json.{hint}"
    )


def _restored(described: Mapping[str, Any]) -> ModelSpec:
    return without_trust(restore(ModelSpec, described, path="model"))  # type: ignore[type-abstract]


def _moved_along(adapter: AdapterSource, check: Callable[[ModelSpec], object]) -> ModelSpec | None:
    """The base of an adapter whose project was moved with its runs; None where it was not."""
    model = _restored(relocated(adapter.run(), adapter.folder.parent)["model"])
    try:
        check(model)
    except ModelError:
        return None
    return model
