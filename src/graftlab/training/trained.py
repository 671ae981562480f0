"""What was trained, found by one path: a base with its adapter, or a whole model.

RUN/, RUN/adapter/, a checkpoint    the adapter there, on the base that its run names
RUN/ of lora=full, MODEL/           a whole model

Teachers and drafts are found so; `sample` finds an adapter and its base by the same steps.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.adapters.store import AdapterSource, find_adapter
from graftlab.errors import ConfigError, ModelError
from graftlab.models.base import ModelSpec
from graftlab.models.folder import model_in
from graftlab.models.trust import UntrustedError, without_trust
from graftlab.models.undamaged import require_undamaged
from graftlab.registry import restore
from graftlab.tracking.paths import relocated

if TYPE_CHECKING:
    import torch

    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base
    from graftlab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Trained:
    """Files that are there; nothing heavy is loaded yet."""

    path: str
    """As it was typed."""
    model: ModelSpec
    source: AdapterSource | None
    """Its adapter; None where the model stands by itself."""

    def load_tokenizer(self) -> Tokenizer:
        """The one that it was trained with."""
        return load_tokenizer(self.model, self.source)

    def fingerprint(self) -> str:
        """16 hex digits of base and adapter; another training gives others. Raises ModelError."""
        from graftlab.models.fingerprint import file_digest

        base = self.model.fingerprint()
        if self.source is None:
            return base
        content = [base, self.source.config(), file_digest(self.source.file)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def find_trained(path: str, *, base: str | None = None, advice: str = "") -> Trained:
    """What `path` means. Raises ModelError or ConfigError saying what was looked for.

    `base` is the model folder under an adapter whose run is not known; `advice` ends the message
    where neither says which base it is.
    """
    place = Path(path).expanduser()
    for folder in (place, place / "adapter"):
        if (whole := model_in(folder)) is not None:
            whole.check()
            require_undamaged(folder)
            return Trained(path, whole, None)
    source = find_adapter(path)
    if base is None:
        return Trained(path, base_of(source, advice=advice), source)
    if (model := model_in(Path(base).expanduser())) is None:
        raise ModelError(f"objective.base={base} is no model folder.")
    model.check()
    return Trained(path, model, source)


def base_of(source: AdapterSource, *, advice: str) -> ModelSpec:
    """The base that the adapter's `run.yaml` names, without the trust that file may claim.

    Raises ConfigError or ModelError.
    """
    described = source.run().get("model")
    if described is None:
        named = source.config().get("base_model_name_or_path")
        raise ConfigError(
            f"{source.path} has no run.yaml that says which base it belongs to (its "
            f"adapter_config.json names {named}): {advice}."
        )
    try:
        model = without_trust(restore(ModelSpec, described, path="model"))  # type: ignore[type-abstract]
        model.check()
    except (ConfigError, TypeError, AttributeError) as error:
        raise ModelError(f"the run.yaml of {source.path} describes no base: {error}.") from error
    except UntrustedError as error:
        raise ModelError(f"{error} An adapter's run.yaml cannot give that: {advice}.") from error
    except ModelError as error:
        if (moved := _moved_along(source)) is not None:
            return moved
        raise ModelError(
            f"{error} The adapter was trained on it; if it lies elsewhere now, {advice}."
        ) from error
    return model


def _moved_along(source: AdapterSource) -> ModelSpec | None:
    """The base of an adapter whose project was moved with its runs; None where it was not."""
    described = relocated(source.run(), source.folder.parent)["model"]
    model = without_trust(restore(ModelSpec, described, path="model"))  # type: ignore[type-abstract]
    try:
        model.check()
    except ModelError:
        return None
    return model


def load_tokenizer(model: ModelSpec, source: AdapterSource | None) -> Tokenizer:
    """What the adapter was trained with, if its folder has it; else the model's own."""
    from graftlab.text.tokenizer import holds_tokenizer

    saved = source is not None and holds_tokenizer(source.folder)
    tokenizer = model.load_tokenizer(source.folder if source is not None and saved else None)
    if source is not None and tokenizer.asks_date:
        tokenizer.date = source.run().get("date")  # as in training
    return tokenizer


def load_onto(base: Base, source: AdapterSource | None, *, dtype: torch.dtype) -> Adapter | None:
    """The adapter, attached to the base that it was trained on. Raises ModelError for another."""
    if source is None:
        return None
    trained_on = source.base_fingerprint()
    if trained_on not in (None, base.fingerprint):
        raise ModelError(
            f"{source.path} was trained on another base (fingerprint {trained_on}) than "
            f"{base.name} ({base.fingerprint}): what it says there would mean nothing. Take the "
            "base it was trained on."
        )
    from graftlab.adapters.attach import load_adapter

    return load_adapter(base, source, dtype=dtype)
