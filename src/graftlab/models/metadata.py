"""What is known of a base without loading it: its tensors by name and shape, and its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.errors import GraftlabError, ModelError
from graftlab.models.base import ModelSpec


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A base without its weights: tensors by name and shape, config, and where all that is from."""

    name: str
    source: str
    tensors: Mapping[str, tuple[int, ...]]
    config: Mapping[str, Any]
    folder: Path | None
    """Where config and tokenizer lie; None when only the architecture is known."""


def read_metadata(spec: ModelSpec) -> ModelMetadata:
    """The base's shapes, from the first of: headers of its files, its config.json alone, the
    published architecture. Raises ModelError when there is none of them.
    """
    model: Any = spec
    hub, facts = getattr(model, "hub", None), getattr(model, "architecture", None)
    folder: Path | None = None
    if (published := spec.published) is not None:
        text = "counted from its config" if spec.on_disk else "published architecture"
        where = spec.description()
        tensors, numbers = published.tensors(), published.config()
        return ModelMetadata(spec.name, text, tensors, numbers, where)
    try:
        folder = model.description()
    except GraftlabError as error:
        if facts is None or not facts.known:
            raise _unreachable(error, hub) from error
    if folder is None:
        assert facts is not None
        name = hub or "a base"
        return ModelMetadata(name, "published architecture", facts.tensors(), facts.config(), None)
    from graftlab.models.headers import refuse_quantised, text_config
    from graftlab.models.quantization.packed import refuse_twice, weights_in
    from graftlab.models.weights import read_json, stored_tensors

    config = read_json(folder / "config.json")
    refuse_quantised(folder, config)
    refuse_twice(folder, config, spec.quantization)
    config = {**config, **text_config(config)}
    name = hub or model.name
    try:
        stored_tensors(folder)
    except ModelError:
        trusted = bool(getattr(model, "trust_remote_code", False))
        counted = _on_meta(folder, trusted)
        return ModelMetadata(
            name, "counted from config.json, without weights", counted, config, folder
        )
    stored = {name: weight.shape for name, weight in weights_in(folder).items()}
    return ModelMetadata(name, "counted in its files", stored, config, folder)


def _unreachable(error: Exception, hub: str | None) -> ModelError:
    if hub is None:
        return ModelError(str(error))
    return ModelError(
        f"{error} For a plan, config.json and the tokenizer's files are enough: copy those, or "
        "give model.architecture.hidden_size, layers, heads, feed_forward and vocab_size."
    )


def _on_meta(folder: Path, trusted: bool) -> dict[str, tuple[int, ...]]:
    """Parameters by name and shape, built where tensors take no memory. Raises ModelError."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trusted
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise ModelError(f"{folder}: its config.json makes no language model: {error}") from error
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
