"""Conversations to token sets: ids and shifted labels, built together and cached.

rendered   s s u u a a a e \\n       "a e" the answer and its stop token, "\\n" what follows
input_ids  s s u u a a a            what is computed: nothing after the last label
labels     - - - a a a e            shifted in `memmap_writer.py` and nowhere else; "-" is IGNORE
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from graftlab.caches import default_cache
from graftlab.errors import DataError, GraftlabError, Problem
from graftlab.progress import Progress
from graftlab.text.apart import Columns, lay_apart
from graftlab.text.cache import ARRAYS, OPTIONAL, cache_key, drafting, publish, read_or_tell
from graftlab.text.document import Document, of_turns
from graftlab.text.drafts import TurnDraft
from graftlab.text.dropped import Dropped
from graftlab.text.memmap_writer import Flat, fingerprint
from graftlab.text.spans import MaskProblem
from graftlab.text.tokenizer import Tokenizer
from graftlab.text.turns import TurnReader
from graftlab.types import IGNORE, PLAIN, Conversation, Tokens

_CHUNK = 512  # conversations encoded in one batch
_COUNTED = 512  # documents whose labels are counted at a time, nine bytes a token


@dataclass(frozen=True, slots=True)
class Refused:
    """A conversation that the template or the tokenizer gives no trained tokens for."""

    index: int  # among the conversations
    reason: str


@dataclass
class TokenSet:
    """n documents in flat arrays, possibly memory-mapped, which hold m >= n of them.

    Document k of the arrays is `offsets[k:k + 2]`; document i of the set is `picked[i]` there.
    A document's length is that of its `input_ids`, what branches share counted once. A conversation
    is one document, of a branch per assistant turn where the template re-renders earlier turns, or
    one per such turn where that is laid apart; `sources` says which it came from. Segments are
    those of `types.Tokens`: none in any document, or at least one in each.
    """

    input_ids: np.ndarray  # (total,) int32
    labels: np.ndarray  # (total,) int32, shifted
    offsets: np.ndarray  # (m + 1,) int64
    parts: np.ndarray  # (n, 3) int32: rendered tokens of system, user, assistant
    sources: np.ndarray  # (n,) int32: index of the conversation
    fingerprint: str  # hash of the content
    dropped: list[Dropped] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    picked: np.ndarray | None = None  # (n,) int64, rising; None: all that the arrays hold
    note: str | None = None  # what went wrong on the way, for the log
    segments: np.ndarray | None = None  # (all segments, 3) int32: length, parent, kind
    segment_offsets: np.ndarray | None = None  # (m + 1,) int64: of each document of the arrays
    weights: np.ndarray | None = None  # (total,) float32; None: every label counts once
    reference: np.ndarray | None = None  # (all segments,) float32, from a reference pass

    def __len__(self) -> int:
        return len(self.offsets) - 1 if self.picked is None else len(self.picked)

    def __getitem__(self, index: int) -> Tokens:
        place = int(index if self.picked is None else self.picked[index])
        start, end = int(self.offsets[place]), int(self.offsets[place + 1])
        table = None if self.segments is None else self.segments[self.segments_of(index)]
        if table is not None and len(table) == 1 and table[0, 2] == PLAIN:
            table = None
        weights = None if self.weights is None else self.weights[start:end]
        return Tokens(self.input_ids[start:end], self.labels[start:end], table, weights)

    def segments_of(self, index: int) -> slice:
        """Where the segments of document `index` lie in `segments` and `reference`."""
        assert self.segment_offsets is not None, "a set of plain documents"
        place = int(index if self.picked is None else self.picked[index])
        return slice(int(self.segment_offsets[place]), int(self.segment_offsets[place + 1]))

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens per document, (n,) int64."""
        lengths = np.diff(self.offsets)
        return lengths if self.picked is None else lengths[self.picked]

    @cached_property
    def num_labels(self) -> np.ndarray:
        """Trained tokens per document, (n,) int64."""
        return self._summed(None)

    @cached_property
    def branched(self) -> bool:
        """Whether a document has branches, or segments that continue others."""
        return self.segments is not None and bool((self.segments[:, 1] >= 0).any())

    @cached_property
    def label_weights(self) -> np.ndarray:
        """What the labels of each document weigh together, (n,): `num_labels` without weights."""
        return self.num_labels if self.weights is None else self._summed(self.weights)

    def _summed(self, weights: np.ndarray | None) -> np.ndarray:
        """Labels of each document, or their weights, a few documents at a time."""
        sums = np.zeros(len(self.offsets) - 1, np.int64 if weights is None else np.float64)
        for first in range(0, len(sums), _COUNTED):
            starts = self.offsets[first : first + _COUNTED]
            end = self.offsets[min(first + _COUNTED, len(sums))]
            counted = self.labels[starts[0] : end] != IGNORE
            if weights is not None:
                counted = counted * weights[starts[0] : end]
            # Documents are never empty, which reduceat could not count.
            sums[first : first + _COUNTED] = np.add.reduceat(
                counted, (starts - starts[0])[: len(sums) - first], dtype=sums.dtype
            )
        return sums if self.picked is None else sums[self.picked]


def encode(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    over_limit: str = "drop",
    on_invalid: str = "error",
    train_turns: str = "all",
    share_prompts: bool = True,
    train_on: str = "both",
    row_length: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
) -> TokenSet:
    """Encode conversations, or take them from the cache (None: the default cache folder).

    Documents of more than `max_length` tokens are dropped and listed in `dropped`; with
    `over_limit="error"` they are refused. The cache holds all of them, whatever the limit. A cache
    that cannot be written costs memory and the next run's time, and is told in `note`. Without
    `share_prompts`, branches are laid apart, each behind a copy of what it shares with others; so
    are turns of one conversation that together do not fit in `row_length` (default: the limit).
    Rows that the template gives no mask for are listed in `refused` with `on_invalid="skip"`.
    Raises DataError with file and line of every one of them otherwise, or when none is left.
    """
    home = default_cache() if cache is None else cache
    key = cache_key(conversations, tokenizer.rendering, train_turns, train_on)
    stored, damaged, note = *read_or_tell(home, key), None
    reader = TurnReader(tokenizer, train_turns=train_turns, train_on=train_on)
    if stored is None:
        with drafting(home, key) as draft, closing(Flat(draft)) as flat:
            refused = _encode_all(conversations, reader, flat, progress)
            _check_refused(refused, conversations, on_invalid)
            stored, note = _stored(flat, draft, home, key)
        note = " ".join(filter(None, (damaged, note))) or None
    else:
        refused = _refused_again(stored[0]["sources"], conversations, reader)
        _check_refused(refused, conversations, on_invalid)
    arrays, mark = stored
    whole: Columns = {name: arrays.get(name) for name in (*ARRAYS, *OPTIONAL)}
    columns = lay_apart(whole, beyond=(row_length or max_length) if share_prompts else None)
    if columns is not whole:
        mark = fingerprint(columns)
    tokens = TokenSet(**columns, fingerprint=mark, note=note, refused=refused)
    return _within_limit(tokens, conversations, max_length=max_length, over_limit=over_limit)


def _encode_all(
    conversations: Sequence[Conversation], reader: TurnReader, flat: Flat, progress: bool
) -> list[Refused]:
    """Fill `flat`; the conversations that gave no document, in order."""
    refused: list[Refused] = []
    shown = progress and len(conversations) > _CHUNK
    with Progress("encoding", total=len(conversations), shown=shown) as bar:
        for start in range(0, len(conversations), _CHUNK):
            chunk = conversations[start : start + _CHUNK]
            for index, made in _documents(chunk, start, reader):
                if isinstance(made, Refused):
                    refused.append(made)
                    continue
                for document in made:
                    flat.add(document, source=index)
            bar.advance(len(chunk))
    return sorted(refused, key=lambda found: found.index)


def _documents(
    chunk: Sequence[Conversation], start: int, reader: TurnReader
) -> Iterator[tuple[int, list[Document] | Refused]]:
    """What becomes of each conversation of a chunk.

    One of several drafts that is refused takes the others of its conversation with it.
    """
    drafts: list[tuple[int, TurnDraft]] = []
    for index, conversation in enumerate(chunk, start):
        try:
            drafts += [(index, draft) for draft in reader.drafts(conversation)]
        except (MaskProblem, GraftlabError) as problem:
            yield index, Refused(index, str(problem))
    found = [*reader.documents([draft for _, draft in drafts])]
    bad: dict[int, str] = {}
    for (index, _), made in zip(drafts, found, strict=True):
        if isinstance(made, MaskProblem):
            bad.setdefault(index, str(made))
    yield from ((index, Refused(index, reason)) for index, reason in bad.items())
    whole: dict[int, list[Document]] = {}
    for (index, _), made in zip(drafts, found, strict=True):
        if index not in bad:
            assert not isinstance(made, MaskProblem)
            whole.setdefault(index, []).extend(made)
    yield from ((index, of_turns(documents)) for index, documents in whole.items())


def _refused_again(
    sources: np.ndarray, conversations: Sequence[Conversation], reader: TurnReader
) -> list[Refused]:
    """Those that left no document in a cached set, with the reasons, which it does not hold."""
    refused = []
    for index in np.setdiff1d(np.arange(len(conversations)), sources).tolist():
        for _, made in _documents([conversations[index]], index, reader):
            if isinstance(made, Refused):
                refused.append(made)
    return refused


def _check_refused(
    refused: Sequence[Refused], conversations: Sequence[Conversation], on_invalid: str
) -> None:
    if not refused or (on_invalid == "skip" and len(refused) < len(conversations)):
        return
    hint = " (data.on_invalid=skip leaves them out)" if on_invalid == "error" else ""
    raise DataError(
        f"{len(refused)} of {len(conversations)} conversations cannot be turned into trained "
        f"tokens{hint}:",
        [Problem(conversations[one.index].where, one.reason) for one in refused],
    )


def _stored(
    flat: Flat, draft: Path | None, home: Path, key: str
) -> tuple[tuple[dict[str, np.ndarray], str], str | None]:
    """The finished arrays with their hash, put into the cache; or a note why that was not done."""
    arrays = flat.arrays()
    mark = fingerprint(arrays)
    problem = flat.problem
    if draft is None:
        problem = "it is not a folder that can be written to"
    elif problem is None:
        try:
            publish(draft, home, key, arrays, mark)
        except OSError as error:
            problem = error.strerror or str(error)
    # Read back, so that the first run maps the same files into memory as the later ones.
    stored = read_or_tell(home, key)[0] if problem is None else None
    if stored is not None:
        return stored, None
    return (arrays, mark), (
        f"the token cache {home} cannot be used ({problem or 'it was cleared meanwhile'}), so the "
        "next run will encode anew: let GRAFTLAB_CACHE name a folder with room."
    )


def _within_limit(
    tokens: TokenSet, conversations: Sequence[Conversation], *, max_length: int, over_limit: str
) -> TokenSet:
    """The documents within the limit; their arrays stay as they are, and nothing is copied."""
    keep = tokens.lengths <= max_length
    if keep.all():
        return tokens
    dropped = [
        Dropped.of(conversations[tokens.sources[i]].where, tokens[i])
        for i in np.flatnonzero(~keep).tolist()
    ]
    if over_limit == "error":
        raise DataError(
            f"{len(dropped)} of {len(tokens)} documents are longer than "
            f"packing.max_length={max_length} (raise it, shorten them, or leave them out with "
            "data.over_limit=drop):",
            [Problem(drop.where, drop.said) for drop in dropped],
        )
    return replace(
        tokens,
        picked=np.flatnonzero(keep),
        parts=tokens.parts[keep],
        sources=tokens.sources[keep],
        fingerprint=fingerprint(vars(tokens), keep),
        dropped=dropped,
    )
