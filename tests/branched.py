"""Token sets of pairs for tests: a prompt, two answers, and plain documents between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from graftlab.text.apart import lay_apart
from graftlab.text.cache import OPTIONAL
from graftlab.text.document import Document, joined
from graftlab.text.encode import TokenSet
from graftlab.text.memmap_writer import Flat
from graftlab.types import CHOSEN, REJECTED


def answered(prompt: np.ndarray, answer: np.ndarray) -> Document:
    """A prompt with a trained answer."""
    ids = np.concatenate([prompt, answer]).astype(np.int32)
    trained = np.arange(len(ids)) >= len(prompt)
    return Document(ids, trained, (0, len(prompt), len(answer)))


def pair_documents(
    sizes: tuple[tuple[int, int, int], ...] = ((40, 9, 14), (31, 12, 5), (25, 1, 8)),
    *,
    vocab_size: int = 400,
    plain: int = 17,
    seed: int = 0,
) -> list[Document]:
    """Pairs of (prompt, chosen, rejected) tokens, and a plain document behind them (0: none)."""
    draw = np.random.default_rng(seed)

    def words(count: int) -> np.ndarray:
        return draw.integers(3, vocab_size, count)

    found = []
    for prompt, chosen, rejected in sizes:
        asked = words(prompt)
        answers = [answered(asked, words(count)) for count in (chosen, rejected)]
        found.append(joined(answers, (CHOSEN, REJECTED)))
    return [*found, answered(words(plain), words(6))] if plain else found


def as_token_set(documents: list[Document], *, share_prompts: bool = True) -> TokenSet:
    flat = Flat(None)
    for source, document in enumerate(documents):
        flat.add(document, source=source)
    columns: dict[str, Any] = {**dict.fromkeys(OPTIONAL), **flat.arrays()}
    if not share_prompts:
        columns = lay_apart(columns)
    return TokenSet(**columns, fingerprint="pairs")
