"""Apple's on-device models: their SentencePiece vocabulary and the chat template "AFM v6".

    </s><turn_start> system↵A conversation ...<turn_end><turn_start> user↵Hi<turn_end>...
    └── end of text, in front               ↵ is the token <n>, in content as in headers

The instruction every one of these models was tuned with opens the system turn: alone where a
conversation has none, in front of a system prompt of one's own, and once where data has it already.
Tools follow in the system turn, one line of JSON each; a response format follows the content of the
turn that carries it:

    <turn_start> system↵INSTRUCTION YOUR PROMPT↵system tools: {...}↵{...}<turn_end>
    <turn_start> user↵QUESTION↵↵response format in json.↵name: ..↵description: ..↵schema: {..}...

Ids and labels equal those of tamm's AFMChatTemplateV6Preprocessor; tests/text shows it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, ModelError, did_you_mean
from graftlab.files.reading import read_json
from graftlab.text.spm import join_pieces, looks_like_marker, model_bytes, read_proto, shown_pieces
from graftlab.text.tokenizer import Tokenizer, fingerprint_of
from graftlab.types import Message

TURN_START, TURN_END, NEWLINE = "<turn_start>", "<turn_end>", "<n>"
SETTINGS = "afm_template.json"
"""Beside a saved tokenizer.model: which instruction its system turns open with."""

INSTRUCTIONS = {
    "en": "A conversation between a user and a helpful assistant.",
    "de_DE": "Ein Gespräch zwischen einem Nutzer und einem hilfsbereiten Assistenten.",
    "es_ES": "Una conversación entre un usuario y un asistente servicial.",
    "fr_FR": "Une conversation entre un utilisateur et un assistant serviable.",
    "it_IT": "Una conversazione tra un utente e un assistente disponibile.",
    "ja_JP": "ユーザーと親切なアシスタントの会話。",
    "ko_KR": "사용자와 도움을 주는 어시스턴트의 대화.",
    "pt_BR": "Uma conversa entre um usuário e um assistente prestativo.",
    "zh_CN": "用户与乐于助人的助手之间的对话。",
}
"""By locale. The English one is tamm's; the others are our translations, not Apple's wording."""

_USER_DEFINED = 4  # SentencePiece's type of pieces that are matched whole
_OUTLINE = f"{TURN_START} {{role}}\n{{content}}{TURN_END}"


class AFMTokenizer(Tokenizer):
    """A `tokenizer.model` of Apple's kind, with the template AFM v6.

    Text is encoded whole, by SentencePiece alone and with its dummy prefix, as the models were
    trained: only so do normalisation and white space come out the same whatever the vocabulary.
    """

    def __init__(
        self, file: Path, *, locale: str | None = None, instruction: str | None = None
    ) -> None:
        """`instruction` replaces the locale's; an empty one leaves system turns as they are.

        Raises ModelError for a vocabulary of another kind, ConfigError for an unknown locale.
        """
        import sentencepiece

        self._file = file
        proto = read_proto(file)
        self._model = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.vocab_size = self._model.vocab_size()
        whole = {
            piece.piece: index
            for index, piece in enumerate(proto.pieces)
            if piece.type == _USER_DEFINED and looks_like_marker(piece.piece)
        }
        self._check(whole)
        named = instruction_of(locale or "en")
        self.instruction = named if instruction is None else instruction
        if self.instruction != self.instruction.strip():
            raise ConfigError("model.instruction must not begin or end with white space.")
        self.template = _OUTLINE
        self._eos = str(self._model.id_to_piece(self._model.eos_id()))
        newline = whole.pop(NEWLINE)
        self._settle_markers({**whole, self._eos: self._model.eos_id()}, {}, self._eos)
        self.reserved |= {NEWLINE}
        self._lines = {newline: "\n"}
        control = {i for i in range(self.vocab_size) if self._model.is_control(i)}
        self._hidden = control | set(self.markers.values())
        model_hash = hashlib.sha256(file.read_bytes()).hexdigest()
        self.fingerprint = fingerprint_of("afm v6", model_hash, self.instruction)

    def _check(self, whole: Mapping[str, int]) -> None:
        missing = [m for m in (TURN_START, TURN_END, NEWLINE) if m not in whole]
        if missing or self._model.eos_id() < 0:
            lack = " and ".join(missing) or "end-of-text token"
            raise ModelError(
                f"{self._file} has no {lack}: it is not a tokenizer of Apple's on-device models."
            )
        if self._model.encode(TURN_START)[1:] != [whole[TURN_START]]:
            raise ModelError(
                f"{self._file} puts no token of its own in front of a text (add_dummy_prefix is "
                "off), which the template AFM v6 expects: train it with add_dummy_prefix=True."
            )

    def render_text(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool,
    ) -> str:
        turns = self._instructed(messages)
        contents = [turn.content + _format_text(turn.response_format) for turn in turns]
        if tools:
            if turns[0].role != "system":
                raise ModelError(
                    "tools are listed in the system turn, and with an empty model.instruction this "
                    "conversation has none: give it one (data.system_prompt), or an instruction."
                )
            contents[0] += "\nsystem tools: " + "\n".join(map(_json, tools))
        text = self._eos + "".join(
            f"{_header(turn.role)}{content}{TURN_END}"
            for turn, content in zip(turns, contents, strict=True)
        )
        asks = generation_prompt and turns[-1].role != "assistant"
        return text + (_header("assistant") if asks else "")

    def _instructed(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with the instruction at its head."""
        if not self.instruction:
            return list(messages)
        if not messages or messages[0].role != "system":
            return [Message("system", self.instruction), *messages]
        system, *others = messages
        if system.content.lstrip().startswith((self.instruction, *INSTRUCTIONS.values())):
            return list(messages)
        content = f"{self.instruction} {system.content}"
        return [Message("system", content, system.response_format), *others]

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole conversations, or of parts as they are within one.

        A whole one begins with the end-of-text token, which SentencePiece does not read in text;
        what it puts in front of a text is cut off, with the marker that a part is led in by.
        """
        led = [self._body(text) for text in texts]
        found = self._model.encode([text.replace("\n", NEWLINE) for text, _ in led])
        return [[*lead, *ids[2 - len(lead) :]] for ids, (_, lead) in zip(found, led, strict=True)]

    def _body(self, text: str) -> tuple[str, list[int]]:
        """The text for SentencePiece, and the ids that stand in front of what it gives."""
        if text.startswith(self._eos):
            return text[len(self._eos) :], [self._model.eos_id()]
        return TURN_END + text, []

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        shown = [index for index in ids if not (skip_special and index in self._hidden)]
        return join_pieces(self._model, shown, self._lines)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return shown_pieces(self._model, ids, self._lines)

    def token_bytes(self) -> list[bytes | None]:
        table = model_bytes(self._model, hidden=self._hidden)
        for index, text in self._lines.items():
            table[index] = text.encode()
        return table

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "tokenizer.model"
        if not target.exists() or not target.samefile(self._file):
            shutil.copyfile(self._file, target)
        settings = {"template": "afm v6", "instruction": self.instruction}
        (folder / SETTINGS).write_text(_json(settings) + "\n", encoding="utf-8")


def load_afm(
    folder: Path, *, locale: str | None = None, instruction: str | None = None
) -> AFMTokenizer:
    """The tokenizer of a toolkit's assets folder, or the one that `AFMTokenizer.save` wrote.

    The instruction it was saved with holds unless another one or a locale is asked for.
    """
    settings = folder / SETTINGS
    if locale is None and instruction is None and settings.is_file():
        try:
            instruction = str(read_json(settings)["instruction"])
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{settings} is damaged: it names no instruction.") from None
    return AFMTokenizer(folder / "tokenizer.model", locale=locale, instruction=instruction)


def recognise(folder: Path) -> AFMTokenizer | None:
    """The tokenizer in `folder`, if a bare SentencePiece model of Apple's kind is all of it."""
    others = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    file = folder / "tokenizer.model"
    if not file.is_file() or any((folder / name).exists() for name in others):
        return None
    whole = {piece.piece for piece in read_proto(file).pieces if piece.type == _USER_DEFINED}
    return load_afm(folder) if whole >= {TURN_START, TURN_END, NEWLINE} else None


def instruction_of(locale: str) -> str:
    """The instruction of a locale such as `pt_BR`, `pt-br` or `pt`. Raises ConfigError."""
    wanted = locale.replace("-", "_").lower()
    for name, text in INSTRUCTIONS.items():
        if wanted in (name.lower(), name.split("_")[0]) or wanted.startswith(f"{name}_"):
            return text
    raise ConfigError(
        f"model.locale={locale} is not one of {', '.join(INSTRUCTIONS)}."
        f"{did_you_mean(locale, INSTRUCTIONS)} Or give its line yourself: model.instruction=TEXT."
    )


def _header(role: str) -> str:
    return f"{TURN_START} {role}\n"


def _format_text(response_format: Mapping[str, Any] | None) -> str:
    """What a response format adds to the content of its turn; nothing when there is none."""
    if response_format is None:
        return ""
    wanted = response_format["json_schema"]
    lines = [f"{key}: {wanted.get(key)}" for key in ("name", "description")]
    return "\n".join(["\n\nresponse format in json.", *lines, f"schema: {_json(wanted['schema'])}"])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
