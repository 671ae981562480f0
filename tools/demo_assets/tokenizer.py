"""The tokenizers of the bases made here: SentencePiece BPE, trained on the corpus itself.

Digits are split, unknown characters fall back to bytes, and nothing is normalised: text survives
the round trip. Turn markers are user-defined pieces, the end-of-sequence piece is a control piece,
and there is no beginning-of-sequence piece.
"""

from __future__ import annotations

import io
import string
from collections.abc import Iterator
from typing import Any

from demo_assets.corpus import END_OF_TEXT, TURN_END, TURN_START, documents

VOCABULARY = 4096
SAMPLE_DOCUMENTS = 6000
AFM_PIECES = ["<turn_start>", "<turn_end>", "<n>", "<executable_start>", "<executable_end>"]


def train_tokenizer(
    seed: int, *, vocabulary: int = VOCABULARY, sample: int = SAMPLE_DOCUMENTS
) -> bytes:
    """Train on the corpus' first documents; the bytes are those of a `tokenizer.model`."""
    return _trained(
        seed,
        sample,
        vocab_size=vocabulary,
        add_dummy_prefix=False,
        user_defined_symbols=[TURN_START, TURN_END],
        unk_id=0,
        eos_id=1,
        eos_piece=END_OF_TEXT,
        pad_id=-1,
    )


def train_afm_tokenizer(seed: int, *, vocabulary: int, sample: int = SAMPLE_DOCUMENTS) -> bytes:
    """The same in the layout of Apple's tokenizers: line ends are a piece, <n>, and a space of its
    own (the dummy prefix) stands in front of every text.
    """
    return _trained(
        seed,
        sample,
        vocab_size=vocabulary,
        add_dummy_prefix=True,
        user_defined_symbols=AFM_PIECES,
        pad_id=0,
        eos_id=1,
        unk_id=2,
    )


def _trained(seed: int, sample: int, **layout: Any) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(seed, sample),
        model_writer=model,
        model_type="bpe",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        required_chars="".join(string.printable.split()),
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
        **layout,
    )
    return model.getvalue()


def _lines(seed: int, sample: int) -> Iterator[str]:
    for text in documents(seed, "train", sample):
        for mark in (TURN_START, TURN_END):
            text = text.replace(mark, "\n")
        yield from (line for line in text.split("\n") if line)
