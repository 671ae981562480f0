"""What each token writes: the bytes joined are the text that the ids decode to."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftlab.errors import ModelError
from graftlab.text.hf import HFTokenizer
from graftlab.text.load import load_tokenizer
from graftlab.text.pieces import backend_bytes
from graftlab.text.tokenizer import Tokenizer
from miniatures import CHATML
from text_tokenizers import write_sentencepiece, write_tokenizer

TEXTS = ["plain words", '{"a": [1.5e3, null]}', "naïve 漢字 🎵", "tab\tand\nline", "▁<0x41>"]


def tokenizer_of(kind: str, folder: Path) -> Tokenizer:
    if kind == "sentencepiece":
        bare = write_sentencepiece(folder, markers=True) / "tokenizer.model"
        return load_tokenizer(bare, template="chatml")
    scheme = {"byte-level": None, "metaspace": "never"}[kind]
    return load_tokenizer(write_tokenizer(folder, CHATML, metaspace=scheme))


@pytest.mark.parametrize("kind", ["byte-level", "metaspace", "sentencepiece"])
def test_bytes_joined_are_the_text(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind, tmp_path)
    table = tokenizer.token_bytes()
    assert len(table) == tokenizer.vocab_size
    # The metaspace vocabulary has no bytes to fall back on.
    for text in TEXTS[:2] if kind == "metaspace" else TEXTS[:4]:
        (ids,) = tokenizer.encode_text([text])
        pieces = [table[index] for index in ids]
        assert None not in pieces or kind == "metaspace"
        if None not in pieces:
            assert b"".join(piece or b"" for piece in pieces) == text.encode()
    assert [table[index] for index in tokenizer.markers.values()] == [None] * len(tokenizer.markers)
    assert sum(data is None for data in table) < 20


def test_the_same_as_llguidance_reads_byte_level_vocabularies(tmp_path: Path) -> None:
    from llguidance import LLTokenizer

    tokenizer = HFTokenizer(write_tokenizer(tmp_path, CHATML))
    theirs = LLTokenizer(tokenizer._backend.to_str())
    ours = tokenizer.token_bytes()
    assert theirs.vocab_size == len(ours)
    read = [
        None if theirs.is_special_token(index) else theirs.decode_bytes([index])
        for index in range(len(ours))
    ]
    # The byte 0xFF, which no text has, is how llguidance marks special tokens.
    pairs = [pair for pair in zip(read, ours, strict=True) if pair[1] not in (None, b"\xff")]
    assert len(pairs) > 300
    assert all(theirs == our for theirs, our in pairs)


def test_other_decoders_are_refused() -> None:
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models

    raw = Raw(models.WordPiece({"a": 0}, unk_token="a"))
    raw.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="decoder of kind WordPiece"):
        backend_bytes(raw, markers=[], where="this model")
