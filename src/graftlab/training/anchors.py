"""Anchors: conversations that a run does not learn, on which it only keeps to what the base says.

They are laid behind the training documents as segments of kind ANCHOR, packed and shuffled with
them. How many is a share of the labels: with 100 trained labels and a share of 0.2, as many anchors
as come nearest to 25, drawn in an order of f(seed), again and again where the file has too few.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graftlab.console import say
from graftlab.data.files import locate
from graftlab.data.jsonl import JsonlData
from graftlab.data.schemas import SchemaAugment
from graftlab.errors import DataError
from graftlab.text.encode import TokenSet, encode
from graftlab.types import ANCHOR, PLAIN

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.training.spec import TrainSpec

KEY = "objective.anchors"


def read_anchors(spec: TrainSpec, files: Any, tokenizer: Tokenizer) -> TokenSet:
    """The conversations of `files`, read and encoded as training data is, within the row length.

    Raises ConfigError for missing files, DataError for rows that cannot be used or if none is left.
    """
    found = [str(path) for path in locate(KEY, files)]
    data = spec.data
    read = JsonlData(
        train=found,
        valid_fraction=0.0,
        system_prompt=data.system_prompt,
        default_instruction=data.default_instruction,
        on_invalid=data.on_invalid,
        ignore_keys=data.ignore_keys,
        schema_augment=SchemaAugment(),
    )
    try:
        conversations = read.load(reserved=tokenizer.reserved).train
    except DataError as error:
        raise DataError(f"{KEY}: {error}") from error
    tokens = encode(
        conversations,
        tokenizer,
        max_length=spec.packing.max_length,
        over_limit=data.over_limit,
        on_invalid=data.on_invalid,
        train_turns=data.train_turns,
        share_prompts=spec.packing.share_prompts,
    )
    if len(tokens) == 0:
        raise DataError(
            f"{KEY}={files}: all {len(tokens.dropped)} documents are longer than "
            f"packing.max_length={spec.packing.max_length}."
        )
    return tokens


def drawn(labels: np.ndarray, *, trained: int, share: float, seed: int) -> np.ndarray:
    """Indices of the anchors, which have `labels` (documents,), beside `trained` labels.

    At least one, and as many as come nearest to a `share` of all labels.
    """
    wanted = trained * share / (1 - share)
    passes = int(wanted // int(labels.sum())) + 1
    draw = np.random.default_rng([seed, 0xA2C])
    order = np.concatenate([draw.permutation(len(labels)) for _ in range(passes)])
    reached = labels[order].cumsum()
    return order[: int(np.abs(reached - wanted).argmin()) + 1]


def with_anchors(train: TokenSet, anchors: TokenSet, places: np.ndarray) -> TokenSet:
    """The documents of `train` and, behind them, those of `anchors` at `places`; in memory."""
    sides = [_columns(train, np.arange(len(train)), None), _columns(anchors, places, ANCHOR)]
    joined = {name: np.concatenate([side[name] for side in sides]) for name in sides[0]}
    if train.weights is None and anchors.weights is None:
        del joined["weights"]
    digest = hashlib.sha256(f"{train.fingerprint} {anchors.fingerprint}".encode())
    digest.update(places.astype(np.int64).tobytes())
    offsets = {name: _offsets(joined.pop(name)) for name in ("lengths", "counts")}
    return replace(
        train,
        **joined,
        offsets=offsets["lengths"],
        segment_offsets=offsets["counts"],
        picked=None,
        fingerprint=digest.hexdigest()[:16],
    )


def _columns(tokens: TokenSet, places: np.ndarray, kind: int | None) -> dict[str, np.ndarray]:
    """Arrays of the documents at `places`; `kind` is that of all their segments, if given."""
    documents = [tokens[int(place)] for place in places]
    tables = [
        np.array([[len(one), -1, PLAIN]], np.int32) if one.segments is None else one.segments
        for one in documents
    ]
    segments = np.concatenate(tables)
    if kind is not None:
        segments = segments.copy()
        segments[:, 2] = kind
    return {
        "input_ids": np.concatenate([one.input_ids for one in documents]),
        "labels": np.concatenate([one.labels for one in documents]),
        "weights": np.concatenate(
            [np.ones(len(o), np.float32) if o.weights is None else o.weights for o in documents]
        ),
        "segments": segments,
        "lengths": np.array([len(one) for one in documents], np.int64),
        "counts": np.array([len(table) for table in tables], np.int64),
        "parts": tokens.parts[places],
        "sources": tokens.sources[places] if kind is None else np.full(len(places), -1, np.int32),
    }


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def mixed_in(spec: TrainSpec, train: TokenSet, tokenizer: Tokenizer, *, tell: bool) -> TokenSet:
    """The training set with the objective's anchors; as it is where it has none."""
    asked = spec.objective.anchor_data()
    if asked is None:
        return train
    files, share = asked
    anchors = read_anchors(spec, files, tokenizer)
    trained = int(train.num_labels.sum())
    places = drawn(anchors.num_labels, trained=trained, share=share, seed=spec.seed)
    labels = int(anchors.num_labels[places].sum())
    if tell:
        again = f", some of them {-(-len(places) // len(anchors))} times"
        say(
            f"{KEY}: {len(places)} documents from {len(anchors)}"
            f"{again if len(places) > len(anchors) else ''}, {labels:,} labels "
            f"({labels / (labels + trained):.1%} of all)"
        )
        if anchors.dropped:
            say(
                f"{KEY}: {len(anchors.dropped)} documents are longer than "
                f"packing.max_length={spec.packing.max_length} and were dropped."
            )
    return with_anchors(train, anchors, places)
