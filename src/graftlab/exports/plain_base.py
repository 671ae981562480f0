"""Bases whose files hold their very weights: the one place that says which do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from graftlab.adapters.origin import require_same_base
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.runtimes.base import NotHere
from graftlab.exports.runtimes.plain import PlainRuntime
from graftlab.models.fingerprint import fingerprint
from graftlab.models.gguf import GGUFModel
from graftlab.models.hf import HFModel

if TYPE_CHECKING:
    from pathlib import Path

    from graftlab.adapters.artifact import TrainedModel
    from graftlab.adapters.store import AdapterSource
    from graftlab.exports.runtimes.base import Runtime
    from graftlab.exports.source import Trained


@dataclass(frozen=True, slots=True)
class PlainBase:
    """An adapter and a base that is a folder of safetensors."""

    trained: TrainedModel
    adapter: AdapterSource
    model: HFModel


def require_base(adapter: Trained, target: str) -> TrainedModel:
    """The adapter on its base, which is a folder of transformers; weights are not looked at.

    Raises ConfigError where the base is not known, and ModelError for another library's and for a
    GGUF file.
    """
    trained = require_known_base(adapter, target)
    refuse_gguf(adapter, target)
    return trained


def require_known_base(adapter: Trained, target: str) -> TrainedModel:
    """The adapter on its base, a folder or a GGUF file. Raises as `require_base`."""
    adapter.require_transformers(target)
    if adapter.on_base is None:
        raise ConfigError(
            f"target={target} needs the base, and the adapter's is not known or not there: give "
            "model=hf model.path=DIR, or the model that it was trained on."
        )
    return adapter.on_base


def gguf_file(adapter: Trained) -> Path | None:
    """The GGUF file that an adapter was trained on; None for another base, or an unknown one."""
    model = adapter.on_base.model if adapter.on_base else None
    return model.file().path if isinstance(model, GGUFModel) else None


def refuse_gguf(adapter: Trained, target: str) -> None:
    """Raise ModelError for an adapter that was trained on a GGUF file."""
    if (file := gguf_file(adapter)) is not None:
        raise ModelError(
            f"{adapter.path} was trained on {file.name}, a GGUF file, and target={target} takes "
            "adapters of safetensors bases alone. target=peft keeps the adapter beside its base."
        )


def require_plain_base(adapter: Trained, target: str) -> PlainBase:
    """The adapter on its base, where that is a folder of safetensors, which are its very weights.

    Raises ConfigError where the base is not known, and ModelError where it is of another kind, or
    another than the adapter was trained on.
    """
    trained = require_base(adapter, target)
    model = trained.model
    if not isinstance(model, HFModel):
        raise ModelError(
            f"{adapter.path} was trained on {model.name}, which is no folder of safetensors: "
            f"target={target} reads those alone. target=peft keeps the adapter beside its base."
        )
    source = trained.adapter
    assert source is not None, "a whole model was refused"
    if stored := model.storage.title:
        raise ModelError(
            f"{adapter.path} was trained on {model.name} stored in {stored}, and target={target} "
            "writes full-precision weights, on which nobody has trained it. target=peft keeps the "
            "adapter beside its base."
        )
    if model.fingerprint() != fingerprint(model.folder()):
        raise ModelError(
            f"{adapter.path} was trained on {model.name} with other weights than its files hold, "
            f"such as codes of 4 or 8 bits: target={target} would make a model of the files that "
            "nobody has trained. target=peft keeps the adapter beside its base."
        )
    as_stored = partial(fingerprint, model.folder())
    require_same_base(source, model.name, model.fingerprint(), as_stored=as_stored)
    return PlainBase(trained, source, model)


def runtime_on_base(
    adapter: Trained, folder: Path, *, tokenizer: Path, generation: Path | None = None
) -> Runtime | NotHere:
    """Plain PEFT with the adapter in `folder`, on the base that it was trained on.

    `generation` is a folder that says where replies end; without one, whoever calls PEFT does.
    """
    if adapter.on_base is None:
        return NotHere("its base is not known or not here: give model=hf model.path=DIR")
    model = adapter.on_base.model
    if not isinstance(model, HFModel):
        return NotHere(f"plain PEFT does not load {model.name}, which is no folder of safetensors")
    if stored := adapter.stored or model.storage.title:
        return NotHere(f"its base is stored in {stored}, which plain PEFT is not given here")
    return PlainRuntime(
        model.folder(),
        tokenizer,
        folder,
        generation=generation,
        trust=model.trust_remote_code,
        ends_replies=generation is not None,
    )
