"""Which bytes each token of a vocabulary writes: byte-level BPE and SentencePiece-like pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from graftlab.errors import ModelError

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How SentencePiece and its kin name a token that is one byte."""
SPACE = "\u2581"


def piece_bytes(piece: str, *, is_byte: bool) -> bytes:
    """The bytes of a SentencePiece piece; one that stands for a byte says so by `is_byte`."""
    byte = BYTE.fullmatch(piece) if is_byte else None
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()


def backend_bytes(backend: Any, *, markers: Iterable[int], where: str) -> list[bytes | None]:
    """Per id of a Hugging Face `tokenizers.Tokenizer`: its bytes; None for markers, special tokens
    and ids that are not used.

    Raises ModelError for a kind of vocabulary whose decoder is neither byte-level nor one of
    pieces with "▁" for a space.
    """
    rules = json.loads(backend.to_str())
    decoders = _kinds(rules.get("decoder"))
    added = {token["id"]: token for token in rules["added_tokens"]}
    to_bytes = _reader(decoders, where)
    table: list[bytes | None] = [None] * (1 + max(backend.get_vocab().values()))
    hidden = set(markers) | {index for index, token in added.items() if token["special"]}
    for piece, index in backend.get_vocab(with_added_tokens=True).items():
        if index not in hidden:
            table[index] = piece.encode() if index in added else to_bytes(piece)
    unknown = rules["model"].get("unk_token")
    if unknown is not None and (index := backend.token_to_id(unknown)) is not None:
        table[index] = None
    return table


def _reader(decoders: Mapping[str, Any], where: str) -> Any:
    if "ByteLevel" in decoders:
        letters = _byte_letters()
        return lambda piece: b"".join(letters.get(char, char.encode()) for char in piece)
    if "Metaspace" in decoders or "Replace" in decoders:
        falls_back = "ByteFallback" in decoders
        return lambda piece: piece_bytes(piece, is_byte=falls_back)
    raise ModelError(
        f"{where}: guided generation knows byte-level and SentencePiece-like vocabularies, and "
        f"this one has a decoder of kind {' + '.join(decoders) or 'none'}. Leave generation.schema "
        "out."
    )


def _kinds(decoder: Mapping[str, Any] | None) -> dict[str, Any]:
    """Type of decoder -> its settings, sequences unrolled."""
    if decoder is None:
        return {}
    if decoder["type"] == "Sequence":
        return {kind: rule for part in decoder["decoders"] for kind, rule in _kinds(part).items()}
    return {decoder["type"]: decoder}


def _byte_letters() -> dict[str, bytes]:
    """The alphabet of byte-level BPE: printable Latin-1 is itself, the rest follows from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    letters = {chr(byte): bytes([byte]) for byte in plain}
    return letters | {chr(0x100 + n): bytes([byte]) for n, byte in enumerate(others)}
