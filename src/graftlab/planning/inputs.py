"""What a plan reads of a run: the base's shapes with the adapter, and the documents' lengths."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graftlab.adapters.renamed import names_taken_for_experts
from graftlab.adapters.targets import adapted_modules, modules_in, targets_in
from graftlab.data.takes import require_kinds
from graftlab.models.metadata import ModelMetadata
from graftlab.models.quantization.counting import require_dense
from graftlab.planning.shape import Adapted, Shape, measure
from graftlab.planning.workload import Documents, guess_documents
from graftlab.recipes.dataset import ensure_dataset
from graftlab.registry import name_of
from graftlab.training.spec import TrainSpec
from graftlab.training.teacher import num_weights

NO_LIMIT = 2**31 - 1
SEGMENTS = {"answers": 1, "pairs": 3, "labels": 1}
"""Segments of a document, by what an objective takes: a pair is its prompt and two answers."""


def shape_of(base: ModelMetadata, spec: TrainSpec, rank: int) -> Shape:
    """Counts of the base with the configured adapter at `rank`. Raises GraftlabError."""
    require_dense(base.name, base.tensors, spec.model.storage)
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
        asks_base=spec.objective.asks_base(),
        validates_base=spec.objective.asks_base(validating=True),
        needs_reference=spec.objective.needs_reference,
        needs_mismatched=spec.objective.needs_mismatched,
    )


def read_documents(spec: TrainSpec, base: ModelMetadata) -> Documents:
    """Lengths of the documents, counted or estimated; what a recipe makes is made first."""
    from graftlab.text.encode import encode
    from graftlab.training.anchors import drawn, read_anchors

    ensure_dataset(spec.data, tell=False)
    if not spec.data.has_files:
        lengths, labels = spec.data.profile.lengths()
        text = "assumed: data.profile, as there is no data.train"
        segments = len(lengths) * SEGMENTS[spec.objective.takes]
        return Documents(lengths, labels, text, exact=False, segments=segments)
    tokenizer = _tokenizer(spec, base.folder) if base.folder else None
    found = spec.data.load(reserved=tokenizer.reserved if tokenizer else frozenset())
    name, takes = name_of(spec.objective), spec.objective.takes
    require_kinds(found.train, found.valid, takes=takes, objective=name)
    if tokenizer is None:
        return replace(
            guess_documents(found.train),
            valid_tokens=int(guess_documents(found.valid).lengths.sum()),
            segments=(len(found.train) + len(found.valid)) * SEGMENTS[takes],
            notes=list(found.notes),
        )
    read = partial(
        encode,
        tokenizer=tokenizer,
        on_invalid=spec.data.on_invalid,
        train_turns=spec.data.train_turns,
        share_prompts=spec.packing.share_prompts,
        train_on=spec.data.train_on,
        row_length=spec.packing.max_length,
    )
    train = read(found.train, max_length=NO_LIMIT, progress=True)
    valid = read(found.valid, max_length=spec.packing.max_length)
    counted, exact = "counted with the model's tokenizer", not spec.objective.uses_teacher_answers()
    if not exact:
        counted += ", on the data's answers: the teacher's are not drawn yet"
    lengths, labels = train.lengths, train.num_labels
    if (asked := spec.objective.anchor_data()) is not None:
        anchors = read_anchors(spec, asked[0], tokenizer)
        trained = int(labels[lengths <= spec.packing.max_length].sum())
        places = drawn(anchors.num_labels, trained=trained, share=asked[1], seed=spec.seed)
        lengths = np.concatenate([lengths, anchors.lengths[places]])
        labels = np.concatenate([labels, anchors.num_labels[places]])
    return Documents(
        lengths,
        labels,
        counted,
        exact=exact,
        valid_tokens=int(valid.lengths.sum()),
        segments=sum(0 if s.segments is None else len(s.segments) for s in (train, valid)),
        notes=[*tokenizer.notes, *found.notes, *([train.note] if train.note else [])],
    )


def _tokenizer(spec: TrainSpec, folder: Path) -> Any:
    """The model's tokenizer, without its weights being fetched."""
    if spec.model.on_disk:
        tokenizer = spec.model.load_tokenizer()
        tokenizer.date = spec.date
        return tokenizer
    from graftlab.text.load import load_tokenizer

    trusted = bool(getattr(spec.model, "trust_remote_code", False))
    return load_tokenizer(folder, template=spec.model.template, trust_remote_code=trusted)
