"""Bare SentencePiece models with a chat template given by name, file or folder."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graftlab.errors import ModelError
from graftlab.text.pieces import BYTE, SPACE, piece_bytes
from graftlab.text.template import (
    DATE_FUNCTION,
    compile_template,
    functions,
    template_text,
)
from graftlab.text.tokenizer import TemplateTokenizer, fingerprint_of, marker_pattern

_LAYOUT = "a\n\nb  c"


class SentencePieceTokenizer(TemplateTokenizer):
    """A `tokenizer.model` and a template.

    Text is encoded without SentencePiece's "dummy prefix" (the space it would put in front of every
    piece of text between two markers), so ids say exactly what the template wrote.
    """

    def __init__(self, file: Path, *, template: str | None = None) -> None:
        self._file = file
        self._model = _load_model(file)
        self.vocab_size = self._model.vocab_size()
        own = file.parent / "chat_template.jinja"
        if template is None and not own.is_file():
            raise ModelError(
                f"{file} brings no chat template: set model.template=chatml, or a Jinja file."
            )
        named = template if template is not None else str(own)
        self.template = template_text(named, markers=self._is_piece)
        self._render = compile_template(self.template)
        control, user = self._special_pieces()
        self._eos = self._control_piece(self._model.eos_id())
        self.bos = self._control_piece(self._model.bos_id())
        self._settle_markers(control, user, self._eos)
        if template == "chatml" and "<|im_end|>" not in self.markers:
            self.notes = (
                "tokenizer: no ChatML markers in the vocabulary, so they are spelled out and "
                f"turns end with {self._eos}",
            )
        if self.decode(self._model.encode(_LAYOUT)) != _LAYOUT:
            self.notes += (
                "tokenizer: this SentencePiece model changes white space (its normaliser drops or "
                "joins it), so line breaks in templates and content are not seen by the model",
            )
        model_hash = hashlib.sha256(file.read_bytes()).hexdigest()
        self.fingerprint = fingerprint_of("sentencepiece", model_hash, self.template)

    def _is_piece(self, token: str) -> bool:
        return bool(self._model.piece_to_id(token) != self._model.unk_id())

    def _control_piece(self, index: int) -> str | None:
        return str(self._model.id_to_piece(index)) if index >= 0 else None

    def _special_pieces(self) -> tuple[dict[str, int], dict[str, int]]:
        """Control pieces and user-defined ones, which SentencePiece also matches whole."""
        control, user = {}, {}
        for index in range(self.vocab_size):
            piece = self._model.id_to_piece(index)
            if self._model.is_control(index):
                control[piece] = index
            elif piece in self.template and looks_like_marker(piece):
                user[piece] = index
        return control, user

    def _apply(
        self,
        turns: list[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]],
        generation_prompt: bool,
    ) -> str:
        return self._render(
            messages=turns,
            tools=functions(tools),
            add_generation_prompt=generation_prompt,
            bos_token=self.bos or "",
            eos_token=self._eos or "",
            **{DATE_FUNCTION: self.strftime_now},
        )

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of `texts`; what stands between markers is encoded once per distinct string."""
        split = [self._splitter.split(text) for text in texts]
        between = dict.fromkeys(part for parts in split for part in parts[::2] if part)
        encoded = self._model.encode(list(between))
        ids_of = dict(zip(between, encoded, strict=True))
        return [
            [
                index
                for place, part in enumerate(parts)
                if part
                for index in ((self.markers[part],) if place % 2 else ids_of[part])
            ]
            for parts in split
        ]

    @cached_property
    def _splitter(self) -> re.Pattern[str]:
        return re.compile(f"({marker_pattern(self.markers).pattern})")

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        hidden = set(self.markers.values()) if skip_special else set()
        return join_pieces(self._model, [index for index in ids if index not in hidden])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return shown_pieces(self._model, ids)

    def token_bytes(self) -> list[bytes | None]:
        return model_bytes(self._model, hidden=self.markers.values())

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "tokenizer.model"
        if not target.exists() or not target.samefile(self._file):
            shutil.copyfile(self._file, target)
        (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")


def model_bytes(model: Any, *, hidden: Iterable[int]) -> list[bytes | None]:
    """Per id of a SentencePiece model: its bytes; None for control pieces and those `hidden`."""
    none = set(hidden)
    return [
        None
        if index in none
        or model.is_control(index)
        or model.is_unknown(index)
        or model.is_unused(index)
        else piece_bytes(model.id_to_piece(index), is_byte=model.is_byte(index))
        for index in range(model.vocab_size())
    ]


def looks_like_marker(piece: str) -> bool:
    """Whether a piece is written as markers are: <...> or [...]."""
    return len(piece) > 2 and piece[0] in "<[" and piece[-1] in ">]"


def join_pieces(
    model: Any, ids: Sequence[int], spelled: Mapping[int, str] = MappingProxyType({})
) -> str:
    """The text of `ids`; runs of byte pieces are UTF-8, `spelled` are ids with a text of theirs."""
    data = bytearray()
    for index in ids:
        piece = spelled.get(index) or model.id_to_piece(index)
        data += piece_bytes(piece, is_byte=model.is_byte(index))
    return data.decode("utf-8", "replace")


def shown_pieces(
    model: Any, ids: Sequence[int], spelled: Mapping[int, str] = MappingProxyType({})
) -> list[str]:
    """One string to show per id; byte pieces outside ASCII keep their name."""
    shown = []
    for index in ids:
        piece = spelled.get(index) or model.id_to_piece(index)
        byte = BYTE.fullmatch(piece) if model.is_byte(index) else None
        printable = byte is not None and int(byte[1], 16) < 0x80
        shown.append(chr(int(byte[1], 16)) if printable and byte else piece)
    return [piece.replace(SPACE, " ") for piece in shown]


def read_proto(file: Path) -> Any:
    """A SentencePiece model as its protocol buffer. Raises ModelError for anything else."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    try:
        sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{file} is not a SentencePiece model ({error}).") from None
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(file.read_bytes())
    return proto


def _load_model(file: Path) -> Any:
    import sentencepiece

    proto = read_proto(file)
    proto.normalizer_spec.add_dummy_prefix = False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
