"""Streamed text never holds half a character, and its pieces joined are the reply."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from graftlab.generation.turn import TextStream

TEXT = "Café – 音楽 🎻🎻, naïve Straße; 🏳️‍🌈 end"


class Bytes:
    """A tokenizer whose tokens are single bytes, as in byte-level BPE."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


class Fallback:
    """SentencePiece's byte fallback: a run of bytes is all characters, or all replacement marks."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        try:
            return bytes(ids).decode("utf-8")
        except UnicodeDecodeError:
            return "".join(chr(id) if id < 128 else "\ufffd" for id in ids)


def stream(tokenizer: object, ids: Sequence[int]) -> tuple[list[str], str]:
    pieces: list[str] = []
    sink = TextStream(tokenizer, pieces.append)  # type: ignore[arg-type]
    for id in ids:
        sink.put(id)
    assert sink.ids == list(ids)
    return pieces, sink.text


@pytest.mark.parametrize("tokenizer", [Bytes(), Fallback()])
def test_pieces_are_whole_characters_and_join_to_the_text(tokenizer: object) -> None:
    ids = list(TEXT.encode())
    pieces, text = stream(tokenizer, ids)
    assert text == "".join(pieces) == TEXT
    assert len(pieces) < len(ids)  # some tokens had to wait
    assert not any("\ufffd" in piece for piece in pieces)


def test_pieces_come_as_soon_as_they_are_certain() -> None:
    pieces, _ = stream(Bytes(), list("aé音🎻b".encode()))
    assert pieces == ["a", "é", "音", "🎻", "b"]


@pytest.mark.parametrize("tokenizer", [Bytes(), Fallback()])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_reply_cut_inside_a_character_ends_before_it(tokenizer: object, cut: int) -> None:
    pieces, text = stream(tokenizer, list("so 音🎻".encode())[:-cut])
    assert text == "".join(pieces) == "so 音"
