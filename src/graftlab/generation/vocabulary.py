"""A tokenizer's vocabulary as bytes: what guided generation may choose from, token by token."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graftlab.text.json_schema import require_llguidance

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer

_KNOWN: dict[str, Vocabulary] = {}
"""By the tokenizer's fingerprint; a process rarely meets more than one or two."""


class Vocabulary:
    """The tokens of one tokenizer by their bytes. Made by `vocabulary_of`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.stop_ids = tokenizer.stop_ids
        self.bytes = tokenizer.token_bytes()
        """Per id: the bytes it writes; None for markers and whatever else is no text."""
        self.ids_of: dict[bytes, list[int]] = {}
        """Ids by what they write; a byte that is also a piece has two."""
        for index, data in enumerate(self.bytes):
            if data:
                self.ids_of.setdefault(data, []).append(index)
        self.longest = max(map(len, self.ids_of), default=0)
        self._sorted = sorted(self.ids_of)
        self.ll = _to_llguidance(tokenizer, self.bytes)

    def spell(self, text: bytes) -> list[int] | None:
        """The fewest tokens that write `text`; None where the vocabulary cannot write it."""
        fewest, last = [0], [0]  # tokens up to here, and the size of the last one; 0: no way
        for end in range(1, len(text) + 1):
            fewest.append(len(text) + 1)
            last.append(0)
            for size in range(min(end, self.longest), 0, -1):
                count = fewest[end - size] + 1
                if count < fewest[end] and text[end - size : end] in self.ids_of:
                    fewest[end], last[end] = count, size
        if text and not last[-1]:
            return None
        ids, end = [], len(text)
        while end:
            ids.append(self.ids_of[text[end - last[end] : end]][0])
            end -= last[end]
        return ids[::-1]

    def begun(self, text: bytes) -> list[int]:
        """Tokens that write a beginning of `text`, or all of it and no more."""
        sizes = range(1, min(len(text), self.longest) + 1)
        return [index for size in sizes for index in self.ids_of.get(text[:size], ())]

    def beyond(self, text: bytes) -> list[int]:
        """Tokens that write `text` and more."""
        found = []
        for place in range(bisect_right(self._sorted, text), len(self._sorted)):
            if not self._sorted[place].startswith(text):
                break
            found += self.ids_of[self._sorted[place]]
        return found


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of `tokenizer`, built once per fingerprint and process.

    Raises ConfigError when llguidance is not installed, ModelError for a tokenizer whose tokens
    have no bytes of their own.
    """
    if tokenizer.fingerprint not in _KNOWN:
        _KNOWN[tokenizer.fingerprint] = Vocabulary(tokenizer)
    return _KNOWN[tokenizer.fingerprint]


class _Pieces:
    """What llguidance's TokenizerWrapper asks of a tokenizer."""

    def __init__(self, tokens: list[bytes], stop: int, special: list[int]) -> None:
        self.eos_token_id, self.bos_token_id = stop, None
        self.tokens, self.special_token_ids = tokens, special

    def __call__(self, text: object) -> list[int]:
        """Asked for where a text is forced, and for what we do not ask llguidance: see `mask`."""
        return []


def _to_llguidance(tokenizer: Tokenizer, table: Sequence[bytes | None]) -> Any:
    llguidance = require_llguidance()
    names = {index: marker for marker, index in tokenizer.markers.items()}
    tokens, special = [], []
    for index, data in enumerate(table):
        if data is None:
            special.append(index)
        # A special token needs bytes of its own too: llguidance keeps them apart from all text.
        tokens.append(names.get(index, f"<special {index}>").encode() if data is None else data)
    return llguidance.LLTokenizer(
        llguidance.TokenizerWrapper(_Pieces(tokens, tokenizer.stop_ids[0], special)),
        n_vocab=len(tokens),
        eos_token=list(tokenizer.stop_ids),
        slices=llguidance.LLTokenizer.json_slices(),
    )
