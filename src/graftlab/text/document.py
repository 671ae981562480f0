"""A document as ids, before labels are shifted; and several of one beginning, joined to a tree.

    chosen      s s u u n C C e          n: the last token that they share
    rejected    s s u u n R e
    joined      s s u u | n C C e | n R e

What is shared is the longest beginning that the ids have in common and that holds nothing trained,
short of its last token: each branch begins with that one, whose label is its own first word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from graftlab.types import IGNORE, PLAIN, Tokens


@dataclass(frozen=True, slots=True)
class Document:
    """`trained[t]` says whether token t is to be predicted, from those before it in its branch."""

    ids: np.ndarray  # (T,) int32
    trained: np.ndarray  # (T,) bool
    parts: tuple[int, int, int]  # rendered tokens of system, user, assistant
    segments: np.ndarray | None = None  # (s, 3) int32, as in `types.Tokens`, lengths of `ids`
    weights: np.ndarray | None = None  # (T,) float32: how much each trained token counts


def joined(documents: Sequence[Document], kinds: Sequence[int]) -> Document:
    """One document of several, each of which is one segment; every beginning is laid once.

    `kinds` are those of their branches, which keep their order. Each has a trained token.
    """
    segments: list[tuple[int, int, int]] = []
    pieces: list[tuple[int, slice]] = []

    def lay(group: list[int], start: int, parent: int) -> None:
        """Lay a group whose first `start` tokens are laid, in segment `parent`."""
        if len(group) == 1:
            end = len(documents[group[0]].ids)
            segments.append((end - start, parent, kinds[group[0]]))
            pieces.append((group[0], slice(start, end)))
            return
        end = min(_shared(documents[group[0]], documents[other]) for other in group[1:])
        if end > start:
            segments.append((end - start, parent, PLAIN))
            pieces.append((group[0], slice(start, end)))
            start, parent = end, len(segments) - 1
        for part in _parted(documents, group, start):
            lay(part, start, parent)

    lay([*range(len(documents))], 0, -1)
    ids, trained, weights = (
        np.concatenate([columns[index][place] for index, place in pieces])
        for columns in zip(*map(_columns, documents), strict=True)
    )
    weighted = any(document.weights is not None for document in documents)
    system = documents[0].parts[0]
    assistant = min(len(ids) - system, sum(one.parts[2] for one in documents))
    return Document(
        ids,
        trained,
        (system, len(ids) - system - assistant, assistant),
        np.array(segments, np.int32),
        weights if weighted else None,
    )


def of_turns(documents: list[Document]) -> list[Document]:
    """The documents of one conversation as one, where they have a beginning in common."""
    if len(documents) < 2 or any(one.segments is not None for one in documents):
        return documents
    tree = joined(documents, [PLAIN] * len(documents))
    assert tree.segments is not None
    return documents if (tree.segments[:, 1] < 0).all() else [tree]


def _parted(documents: Sequence[Document], group: list[int], start: int) -> Iterator[list[int]]:
    """The group by what its members share beyond `start`, in order; each alone if nothing."""
    left = group
    while left:
        first, *others = left
        near = [n for n in others if _shared(documents[first], documents[n]) > start]
        yield [first, *near]
        left = [n for n in others if n not in near]


def _shared(one: Document, other: Document) -> int:
    """Tokens that both can be laid with once."""
    most = min(len(one.ids), len(other.ids), *(int(d.trained.argmax()) for d in (one, other)))
    unlike = np.flatnonzero(one.ids[:most] != other.ids[:most])
    return max(0, (int(unlike[0]) if len(unlike) else most) - 1)


def _columns(document: Document) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weights = document.weights
    if weights is None:
        weights = np.ones(len(document.ids), np.float32)
    return document.ids, document.trained, weights


def shifted(document: Document) -> Tokens:
    """The document with each branch cut after its last label; what goes on in branches has none."""
    table = document.segments
    if table is None:
        return _cut(document, slice(0, len(document.ids)))
    edges = [0, *np.cumsum(table[:, 0]).tolist()]
    parents = set(table[:, 1].tolist())
    parts = []
    for row, (start, end) in enumerate(pairwise(edges)):
        if row not in parents:
            parts.append(_cut(document, slice(start, end)))
            continue
        assert not document.trained[start:end].any(), "what branches share is not trained"
        labels, ones = np.full(end - start, IGNORE, np.int32), np.ones(end - start, np.float32)
        parts.append(Tokens(document.ids[start:end], labels, weights=ones))
    lengths = [len(part) for part in parts]
    weighed = [part.weights for part in parts if part.weights is not None]
    return Tokens(
        np.concatenate([part.input_ids for part in parts]).astype(np.int32, copy=False),
        np.concatenate([part.labels for part in parts]),
        np.column_stack([lengths, table[:, 1:]]).astype(np.int32),
        None if document.weights is None else np.concatenate(weighed),
    )


def _cut(document: Document, place: slice) -> Tokens:
    """One branch, up to the token before its last label."""
    ids, trained = document.ids[place], document.trained[place]
    end = int(np.flatnonzero(trained)[-1])
    labels = np.where(trained[1 : end + 1], ids[1 : end + 1], IGNORE)
    weights = document.weights
    return Tokens(
        ids[:end].astype(np.int32, copy=False),
        labels.astype(np.int32, copy=False),
        weights=None if weights is None else weights[place][1 : end + 1],
    )
