"""Whether two tokenizers are the same: what one model draws, another must be able to judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer

PROBES = (
    "Hello world, it's 1984: don't panic!  Two  spaces,\ta tab.\n\n",
    "def f(x):\n    return x ** 2 if x != 3.14159 else [1_000]",
    "Größe, naïve, déjà-vu — “quotes” … 漢字とかな 한국어 Привет 🎵",
)


def vocabulary_difference(ours: Tokenizer, theirs: Tokenizer) -> str | None:
    """What tells two vocabularies apart, in words; None where the same text has the same ids.

    Chat templates may differ: compare `template` for those.
    """
    if ours.fingerprint == theirs.fingerprint:
        return None
    if ours.vocab_size != theirs.vocab_size:
        return piece_difference(ours, theirs)
    if ours.encode_text(PROBES) != theirs.encode_text(PROBES):
        return "the same text has other ids"
    names = [dict(one.markers) for one in (ours, theirs)]
    moved = sorted(n for n in names[0].keys() & names[1].keys() if names[0][n] != names[1][n])
    if moved:
        return f"{moved[0]} has another id"
    return piece_difference(ours, theirs)


def piece_difference(ours: Tokenizer, theirs: Tokenizer) -> str | None:
    """The first id that is not the same text to both, in words; how text is split may differ."""
    if ours.fingerprint == theirs.fingerprint:
        return None
    if ours.vocab_size != theirs.vocab_size:
        return f"{ours.vocab_size:,} tokens against {theirs.vocab_size:,}"
    ids = range(ours.vocab_size)
    for index, (mine, other) in enumerate(zip(ours.pieces(ids), theirs.pieces(ids), strict=True)):
        if mine != other:
            return f"token id {index} is {mine!r} against {other!r}"
    return None
