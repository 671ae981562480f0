"""The tokenizer of the tiny base: SentencePiece BPE, trained on the corpus itself.

Digits are split, unknown characters fall back to bytes, and nothing is normalised: text survives
the round trip. `<|im_start|>` and `<|im_end|>` are user-defined pieces, `<|endoftext|>` is the
end-of-sequence control piece; there is no beginning-of-sequence piece.
"""

from __future__ import annotations

import io
import string
from collections.abc import Iterator

from graftlab.demo.corpus import END_OF_TEXT, TURN_END, TURN_START, documents

VOCABULARY = 4096
SAMPLE_DOCUMENTS = 6000


def train_tokenizer(
    seed: int, *, vocabulary: int = VOCABULARY, sample: int = SAMPLE_DOCUMENTS
) -> bytes:
    """Train on the corpus' first documents; the bytes are those of a `tokenizer.model`."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(seed, sample),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        required_chars="".join(string.printable.split()),
        user_defined_symbols=[TURN_START, TURN_END],
        unk_id=0,
        eos_id=1,
        eos_piece=END_OF_TEXT,
        bos_id=-1,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _lines(seed: int, sample: int) -> Iterator[str]:
    for text in documents(seed, "train", sample):
        for mark in (TURN_START, TURN_END):
            text = text.replace(mark, "\n")
        yield from (line for line in text.split("\n") if line)
