"""Conversations to token sets: ids and shifted labels, built together and cached.

rendered   s s u u a a a e \\n       "a e" the answer and its stop token, "\\n" what follows
input_ids  s s u u a a a            what is computed: nothing after the last label
labels     - - - a a a e            shifted here and nowhere else; "-" is IGNORE
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from graftlab.errors import DataError
from graftlab.text.cache import cache_key, default_cache, read_arrays, write_arrays
from graftlab.text.tokenizer import Tokenizer
from graftlab.text.turns import Document, Draft, MaskProblem, TurnReader
from graftlab.types import IGNORE, Conversation, Tokens

_CHUNK = 512  # conversations encoded in one batch


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document longer than the limit."""

    where: str
    tokens: int


@dataclass
class TokenSet:
    """n documents in flat arrays, possibly memory-mapped; document i is `offsets[i:i + 2]`.

    A document's length is that of its `input_ids`. A conversation is one document, or one per
    assistant turn where the template re-renders earlier turns; `sources` says which it came from.
    """

    input_ids: np.ndarray  # (total,) int32
    labels: np.ndarray  # (total,) int32, shifted
    offsets: np.ndarray  # (n + 1,) int64
    parts: np.ndarray  # (n, 3) int32: rendered tokens of system, user, assistant
    sources: np.ndarray  # (n,) int32: index of the conversation
    fingerprint: str  # hash of the content
    dropped: list[Dropped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Tokens:
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return Tokens(self.input_ids[start:end], self.labels[start:end])

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens per document, (n,) int64."""
        return np.diff(self.offsets)

    @cached_property
    def num_labels(self) -> np.ndarray:
        """Trained tokens per document, (n,) int64."""
        # One byte a position; documents are never empty, which reduceat could not count.
        return np.add.reduceat(self.labels != IGNORE, self.offsets[:-1], dtype=np.int64)


def encode(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    over_limit: str = "drop",
    train_turns: str = "all",
    cache: Path | None = None,
    progress: bool = False,
) -> TokenSet:
    """Encode conversations, or take them from the cache (None: the default cache folder).

    Documents of more than `max_length` tokens are dropped and listed in `dropped`; with
    `over_limit="error"` they are refused. The cache holds all of them, whatever the limit.
    Raises DataError with file and line of every row that the template gives no mask for.
    """
    home = default_cache() if cache is None else cache
    key = cache_key(conversations, tokenizer.fingerprint, train_turns)
    stored = read_arrays(home, key)
    if stored is None:
        reader = TurnReader(tokenizer, train_turns=train_turns)
        arrays = _encode_all(conversations, reader, progress)
        stored = arrays, _fingerprint(arrays)
        write_arrays(home, key, *stored)
        # Read back, so that the first run maps files into memory as the later ones do.
        stored = read_arrays(home, key) or stored
    whole = _token_set(*stored)
    return _within_limit(whole, conversations, max_length=max_length, over_limit=over_limit)


def _encode_all(
    conversations: Sequence[Conversation], reader: TurnReader, progress: bool
) -> dict[str, np.ndarray]:
    flat = _Flat()
    problems: list[tuple[int, MaskProblem]] = []
    with _progress_bar(len(conversations), shown=progress) as advance:
        for start in range(0, len(conversations), _CHUNK):
            chunk = conversations[start : start + _CHUNK]
            drafts: list[tuple[int, Draft]] = []
            for index, conversation in enumerate(chunk, start):
                try:
                    drafts += [(index, draft) for draft in reader.drafts(conversation)]
                except MaskProblem as problem:
                    problems.append((index, problem))
            found = reader.documents([draft for _, draft in drafts])
            for (index, _), made in zip(drafts, found, strict=True):
                if isinstance(made, MaskProblem):
                    problems.append((index, made))
                else:
                    for document in made:
                        flat.add(document, source=index)
            advance(len(chunk))
    if problems:
        problems.sort(key=lambda found: found[0])
        raise DataError(
            f"{len(problems)} conversations cannot be turned into trained tokens:",
            [f"{conversations[index].where}: {problem}" for index, problem in problems],
        )
    return flat.arrays()


class _Flat:
    """Documents laid end to end as they come, eight bytes a token: a million fit into memory."""

    def __init__(self) -> None:
        self.input_ids, self.labels = array("i"), array("i")
        self.offsets, self.parts, self.sources = array("q", [0]), array("i"), array("i")

    def add(self, document: Document, *, source: int) -> None:
        """Shift, and cut after the last label."""
        end = int(np.flatnonzero(document.trained)[-1])
        shifted = slice(1, end + 1)
        labels = np.where(document.trained[shifted], document.ids[shifted], IGNORE)
        self.input_ids.frombytes(document.ids[:end].astype(np.int32).tobytes())
        self.labels.frombytes(labels.astype(np.int32).tobytes())
        self.offsets.append(self.offsets[-1] + end)
        self.parts.extend(document.parts)
        self.sources.append(source)

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "input_ids": np.frombuffer(self.input_ids, np.int32),
            "labels": np.frombuffer(self.labels, np.int32),
            "offsets": np.frombuffer(self.offsets, np.int64),
            "parts": np.frombuffer(self.parts, np.int32).reshape(-1, 3),
            "sources": np.frombuffer(self.sources, np.int32),
        }


def _fingerprint(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in ("input_ids", "labels", "offsets"):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()[:16]


def _token_set(
    arrays: dict[str, np.ndarray], fingerprint: str, dropped: Sequence[Dropped] = ()
) -> TokenSet:
    return TokenSet(
        input_ids=arrays["input_ids"],
        labels=arrays["labels"],
        offsets=arrays["offsets"],
        parts=arrays["parts"],
        sources=arrays["sources"],
        fingerprint=fingerprint,
        dropped=list(dropped),
    )


def _within_limit(
    tokens: TokenSet, conversations: Sequence[Conversation], *, max_length: int, over_limit: str
) -> TokenSet:
    keep = tokens.lengths <= max_length
    if keep.all():
        return tokens
    dropped = [
        Dropped(conversations[tokens.sources[i]].where, int(tokens.lengths[i]))
        for i in np.flatnonzero(~keep)
    ]
    if over_limit == "error":
        raise DataError(
            f"{len(dropped)} of {len(tokens)} documents are longer than "
            f"packing.max_length={max_length} (raise it, shorten them, or leave them out with "
            "data.over_limit=drop):",
            [f"{drop.where}: {drop.tokens} tokens" for drop in dropped],
        )
    inside = np.repeat(keep, tokens.lengths)
    arrays = {
        "input_ids": tokens.input_ids[inside],
        "labels": tokens.labels[inside],
        "offsets": np.concatenate([[0], np.cumsum(tokens.lengths[keep])]).astype(np.int64),
        "parts": tokens.parts[keep],
        "sources": tokens.sources[keep],
    }
    return _token_set(arrays, _fingerprint(arrays), dropped)


@contextmanager
def _progress_bar(total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields what advances the bar; on stderr, and gone when done."""
    if not shown or total <= _CHUNK:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("encoding", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("encoding", total=total)
        yield lambda count: bar.advance(task, count)
