"""What is known of a run without loading it: the base's shapes and the documents' lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import GraftlabError, ModelError
from graftlab.tasks.supply import supply

if TYPE_CHECKING:
    from graftlab.planning.shape import Shape
    from graftlab.planning.workload import Documents
    from graftlab.tasks.train import TrainSpec

NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Described:
    """A base without its weights: tensors by name and shape, config, and where all that is from."""

    name: str
    source: str
    tensors: Mapping[str, tuple[int, ...]]
    config: Mapping[str, Any]
    folder: Path | None
    """Where config and tokenizer lie; None when only the architecture is known."""


def describe(spec: TrainSpec) -> Described:
    """The base's shapes, from the first of: headers of its files, its config.json alone, the
    published architecture. Raises ModelError when there is none of them.
    """
    model: Any = spec.model
    hub, facts = getattr(model, "hub", None), getattr(model, "architecture", None)
    folder: Path | None = None
    if (published := spec.model.published) is not None:
        text = "counted from its config" if spec.model.on_disk else "published architecture"
        where = spec.model.description()
        tensors, numbers = published.tensors(), published.config()
        return Described(spec.model.name, text, tensors, numbers, where)
    try:
        folder = model.description()
    except GraftlabError as error:
        if facts is None or not facts.known:
            raise _unreachable(error, hub) from error
    if folder is None:
        assert facts is not None
        name = hub or "a base"
        return Described(name, "published architecture", facts.tensors(), facts.config(), None)
    from graftlab.models.headers import refuse_quantised
    from graftlab.models.weights import read_json, stored_tensors

    config = read_json(folder / "config.json")
    refuse_quantised(folder, config)
    config = {**config, **(config.get("text_config") or {})}
    name = hub or model.name
    try:
        stored = {name: tensor.shape for name, tensor in stored_tensors(folder).items()}
        return Described(name, "counted in its files", stored, config, folder)
    except ModelError:
        trusted = bool(getattr(model, "trust_remote_code", False))
        counted = _on_meta(folder, trusted)
        return Described(name, "counted from config.json, without weights", counted, config, folder)


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


def shape_of(base: Described, spec: TrainSpec, rank: int) -> Shape:
    """Counts of the base with the configured adapter at `rank`. Raises ConfigError."""
    from graftlab.adapters.targets import adapted_modules, modules_in, targets_in
    from graftlab.planning.shape import Adapted, measure
    from graftlab.training.teacher import num_weights

    tied = bool(base.config.get("tie_word_embeddings")) or "lm_head.weight" not in base.tensors
    modules = modules_in(base.tensors, tied=tied)
    names = adapted_modules(modules, targets_in(modules, spec.lora))
    whole = spec.lora.full
    adapted = Adapted(names, 0 if whole else rank, spec.lora.dora, spec.lora.modules_to_save)
    shape = measure(base.tensors, base.config, adapted, name=base.name, source=base.source)
    return replace(
        shape,
        whole=whole,
        trainable=shape.parameters if whole else shape.trainable,
        teacher=num_weights(spec.objective),
    )


def read_documents(spec: TrainSpec, base: Described) -> tuple[Documents, int, list[str]]:
    """Lengths of the training documents, tokens of the validation set, and notes.

    What a recipe makes is made first.
    """
    from graftlab.planning.workload import Documents, guess_documents
    from graftlab.text.encode import encode

    supply(spec.data, tell=False)
    if not spec.data.has_files:
        lengths, labels = spec.data.profile.lengths()
        text = "assumed: data.profile, as there is no data.train"
        return Documents(lengths, labels, text, exact=False), 0, []
    tokenizer = _tokenizer(spec, base.folder) if base.folder else None
    found = spec.data.load(reserved=tokenizer.reserved if tokenizer else frozenset())
    if tokenizer is None:
        guessed = guess_documents(found.valid) if found.valid else None
        valid_tokens = int(guessed.lengths.sum()) if guessed else 0
        return guess_documents(found.train), valid_tokens, found.notes
    read = partial(
        encode,
        tokenizer=tokenizer,
        on_invalid=spec.data.on_invalid,
        train_turns=spec.data.train_turns,
    )
    train = read(found.train, max_length=NO_LIMIT, progress=True)
    valid = read(found.valid, max_length=spec.packing.max_length)
    counted, exact = "counted with the model's tokenizer", not spec.objective.redraws()
    if not exact:
        counted += ", on the data's answers: the teacher's are not drawn yet"
    documents = Documents(train.lengths, train.num_labels, counted, exact=exact)
    notes = [*tokenizer.notes, *found.notes, *([train.note] if train.note else [])]
    return documents, int(valid.lengths.sum()), notes


def _tokenizer(spec: TrainSpec, folder: Path) -> Any:
    """The model's tokenizer, without its weights being fetched."""
    if spec.model.on_disk:
        tokenizer = spec.model.load_tokenizer()
        tokenizer.date = spec.date
        return tokenizer
    from graftlab.text.load import load_tokenizer

    trusted = bool(getattr(spec.model, "trust_remote_code", False))
    return load_tokenizer(folder, template=spec.model.template, trust_remote_code=trusted)
