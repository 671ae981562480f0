"""Every prompt of a token set followed by another row's answer: what KTO estimates its KL on.

set            P0 A0    P1 A1    P2 A2
mismatched     P0 A2    P1 A0    P2 A1        the answer of the row before
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graftlab.errors import DataError
from graftlab.text.encode import TokenSet
from graftlab.text.memmap_writer import fingerprint
from graftlab.types import CHOSEN, IGNORE

if TYPE_CHECKING:
    from graftlab.types import Tokens


def mismatched(tokens: TokenSet, *, max_length: int) -> TokenSet:
    """As many documents as `tokens` has, each one segment; answers are cut at `max_length` tokens.

    A prompt is what comes before a document's first label, an answer what follows from there to the
    end of its segment. Raises DataError for a single document, whose answer would be its own.
    """
    if len(tokens) < 2:
        raise DataError(
            "The KL is estimated on prompts followed by the answer to another one, and one of the "
            "two sets has a single row: give two or more to train on, and as many held out "
            "(data.valid_fraction=0 holds out none)."
        )
    ids, labels, lengths = [], [], []
    for index in range(len(tokens)):
        opening, _, _ = _parts(tokens[index])
        _, words, targets = _parts(tokens[(index - 1) % len(tokens)])
        document = np.concatenate([opening, words])[:max_length]
        blank = np.full(len(opening) - 1, IGNORE, np.int32)
        ids.append(document)
        labels.append(np.concatenate([blank, targets])[: len(document)])
        lengths.append(len(document))
    count = len(lengths)
    table = np.column_stack([lengths, np.full(count, -1), np.full(count, CHOSEN)])
    columns = {
        "input_ids": np.concatenate(ids),
        "labels": np.concatenate(labels),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "segments": table.astype(np.int32),
        "segment_offsets": np.arange(count + 1, dtype=np.int64),
    }
    return TokenSet(
        **columns,
        parts=np.zeros((count, 3), np.int32),
        sources=tokens.sources,
        fingerprint=fingerprint(columns),
    )


def _parts(document: Tokens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The prompt's ids with its last token; the answer's ids without that one, and its labels."""
    first = int(np.flatnonzero(document.labels != IGNORE)[0])
    if document.segments is None:
        path, end = [slice(0, first + 1)], len(document)
    else:
        path, end = _path(document.segments, first)
    opening = np.concatenate([document.input_ids[place] for place in path])
    return opening, document.input_ids[first + 1 : end], document.labels[first:end]


def _path(table: np.ndarray, token: int) -> tuple[list[slice], int]:
    """What comes before a token in its branch, itself included, and where its segment ends."""
    ends = np.cumsum(table[:, 0])
    row = int(np.searchsorted(ends, token, side="right"))
    end = int(ends[row])
    path = [slice(int(ends[row] - table[row, 0]), token + 1)]
    while (row := int(table[row, 1])) >= 0:
        path.insert(0, slice(int(ends[row] - table[row, 0]), int(ends[row])))
    return path, end
