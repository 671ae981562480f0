"""What a plan reads of a run: the base's shapes with the adapter, and the documents' lengths."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from graftlab.adapters.renamed import names_taken_for_experts
from graftlab.adapters.targets import adapted_modules, modules_in, targets_in
from graftlab.models.metadata import ModelMetadata
from graftlab.planning.shape import Adapted, Shape, measure
from graftlab.planning.workload import Documents, guess_documents
from graftlab.recipes.dataset import ensure_dataset
from graftlab.training.spec import TrainSpec
from graftlab.training.teacher import num_weights

NO_LIMIT = 2**31 - 1


def shape_of(base: ModelMetadata, spec: TrainSpec, rank: int) -> Shape:
    """Counts of the base with the configured adapter at `rank`. Raises ConfigError."""
    tied = bool(base.config.get("tie_word_embeddings")) or "lm_head.weight" not in base.tensors
    modules = modules_in(base.tensors, tied=tied, taken=names_taken_for_experts(base.config))
    names = adapted_modules(modules, targets_in(modules, spec.lora))
    whole = spec.lora.full
    lora = spec.lora
    adapted = Adapted(
        names,
        0 if whole else rank,
        lora.dora,
        lora.modules_to_save,
        lora.rank_pattern,
        tokens=len(set(lora.trainable_tokens)),
    )
    shape = measure(base.tensors, base.config, adapted, name=base.name, source=base.source)
    return replace(
        shape,
        whole=whole,
        trainable=shape.parameters if whole else shape.trainable,
        teacher=num_weights(spec.objective),
    )


def read_documents(spec: TrainSpec, base: ModelMetadata) -> tuple[Documents, int, list[str]]:
    """Lengths of the training documents, tokens of the validation set, and notes.

    What a recipe makes is made first.
    """
    from graftlab.text.encode import encode

    ensure_dataset(spec.data, tell=False)
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
        share_prompts=spec.packing.share_prompts,
        row_length=spec.packing.max_length,
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
