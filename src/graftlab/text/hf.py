"""Hugging Face tokenizers with their own chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_letters
from typing import Any

from graftlab.errors import ModelError
from graftlab.text.limit import require_finite
from graftlab.text.pieces import backend_bytes
from graftlab.text.template import (
    functions,
    template_text,
)
from graftlab.text.tokenizer import TemplateTokenizer, fingerprint_of

DATED = (
    "{%- macro strftime_now(form) -%}{%- set shown = namespace(text=form) -%}"
    "{%- for code, text in dated -%}{%- set shown.text = shown.text | replace(code, text) -%}"
    "{%- endfor -%}{{ shown.text }}{%- endmacro -%}"
)
"""Stands before a template that asks for the date, in place of the function that says today's."""
_PROBES = (
    "Hello world, it's 1984: don't panic!  Two  spaces,\ta tab.",
    "def f(x):\n    return x ** 2 if x != 3.14159 else [1_000]\n\n\n",
    "Größe, naïve, déjà-vu — “quotes” … 漢字とかな 한국어 Привет مرحبا",
    " leading and trailing 🎵🎶 e\u0301 \u00a0nbsp ",
    "https://example.org/a?b=c&d=%20 SNAKE_case camelCase 12345678",
)


class HFTokenizer(TemplateTokenizer):
    """What `AutoTokenizer` gives, checked against the tokenizer file itself.

    transformers picks a class by the model's type and may rebuild the pre-tokenizer, silently
    giving other ids than `tokenizer.json`. The file is what the base was trained with, so where the
    two differ the file is used, a note says so, and `save` writes it so that it is read as it is.
    """

    decodes_as_file = False
    """Whether `tokenizer.json` by itself gives the same text for ids."""

    def __init__(
        self, folder: Path, *, template: str | None = None, trust_remote_code: bool = False
    ) -> None:
        self._inner = _load(folder, trust_remote_code)
        self._use_file_if_different(folder / "tokenizer.json")
        if template is not None:
            self._inner.chat_template = template_text(template, markers=self._is_token)
        if not self._inner.chat_template:
            raise ModelError(
                f"the tokenizer in {folder} brings no chat template (a base model?): set "
                "model.template=chatml, or a Jinja file."
            )
        own = self._inner.chat_template
        sources = list(own.values()) if isinstance(own, dict) else [own]
        if not all(isinstance(source, str) for source in sources):
            raise ModelError(f"the chat template of the tokenizer in {folder} is no text.")
        self.template = own if isinstance(own, str) else json.dumps(own, sort_keys=True)
        for source in sources:
            require_finite(source)
        self.bos = self._inner.bos_token
        self.vocab_size = len(self._inner)
        self._backend = getattr(self._inner, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
        added = self._inner.added_tokens_decoder.items()
        special = {token.content: index for index, token in added if token.special}
        special |= dict(
            zip(self._inner.all_special_tokens, self._inner.all_special_ids, strict=True)
        )
        others = {token.content: index for index, token in added if not token.special}
        self._settle_markers(special, others, self._inner.eos_token)
        rules = self._backend.to_str() if self._backend else sorted(self._inner.get_vocab().items())
        self.fingerprint = fingerprint_of("hf", rules, self.template, self.markers)

    def _is_token(self, token: str) -> bool:
        return token in self._inner.get_vocab()

    def _use_file_if_different(self, file: Path) -> None:
        if not file.is_file():
            return
        from tokenizers import Tokenizer as FileTokenizer
        from transformers import PreTrainedTokenizerFast

        direct = FileTokenizer.from_file(str(file))
        direct.no_truncation()
        direct.no_padding()
        wanted = [direct.encode(text, add_special_tokens=False).ids for text in _PROBES]
        given = [self._inner.encode(text, add_special_tokens=False) for text in _PROBES]
        self.decodes_as_file = direct.get_vocab() == self._inner.get_vocab() and all(
            direct.decode(ids, skip_special_tokens=False) == self.decode(ids, skip_special=False)
            for ids in wanted
        )
        if wanted == given:
            return
        inner = self._inner
        named = {key: str(value) for key, value in inner.special_tokens_map.items()}
        self._inner = PreTrainedTokenizerFast(tokenizer_object=direct, **named)
        self._inner.chat_template = inner.chat_template
        self.notes = (
            f"tokenizer: transformers' {type(inner).__name__} splits text otherwise than "
            f"{file.name} does ({sum(map(len, given))} against {sum(map(len, wanted))} tokens on "
            "probe sentences); the file is used as it is",
        )

    def _apply(
        self,
        turns: list[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]],
        generation_prompt: bool,
    ) -> Any:
        return self._inner.apply_chat_template(
            turns,
            tools=functions(tools),
            add_generation_prompt=generation_prompt,
            tokenize=False,
            **(self._dated(tools) if self.asks_date else {}),
        )

    def _dated(self, tools: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The template told our date; transformers hands it plain data only, and no functions."""
        source = self._inner.get_chat_template(tools=list(tools) or None)
        codes = [f"%{sign}{letter}" for sign in ("-", "") for letter in ascii_letters]
        dated = [[code, self.strftime_now(code)] for code in codes]
        return {"chat_template": DATED + source, "dated": [*dated, ["%%", "%"]]}

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        if self._backend is None:
            return [self._inner.encode(text, add_special_tokens=False) for text in texts]
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        text = self._inner.decode(
            list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        shown = []
        for index, raw in zip(ids, self._inner.convert_ids_to_tokens(list(ids)), strict=True):
            shown.append(shown_piece(raw, self.decode([index], skip_special=False)))
        return shown

    def token_bytes(self) -> list[bytes | None]:
        if self._backend is None:
            raise ModelError(
                "guided generation needs a tokenizer with a tokenizer.json (a fast one), and this "
                f"model's is a {type(self._inner).__name__}. Leave generation.schema out."
            )
        named = type(self._inner).__name__
        return backend_bytes(self._backend, markers=self.markers.values(), where=named)

    def beyond(self, rows: int) -> dict[str, int]:
        vocabulary = self._inner.get_vocab()  # ids may have gaps
        return {token: index for token, index in vocabulary.items() if index >= rows}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._inner.save_pretrained(folder)


def shown_piece(raw: str, text: str) -> str:
    """A token to be shown, from its name in the vocabulary and the text that it is alone."""
    # SentencePiece-like vocabularies lose a leading space when decoded one by one.
    lost = raw.startswith("\u2581") and not text.startswith(" ")
    return raw if "\ufffd" in text else f" {text}" if lost else text


def _load(folder: Path, trust_remote_code: bool) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (
        *(OSError, ValueError, ImportError, KeyError, RecursionError, TypeError),
        *(AttributeError, StrictDataclassError),  # of a config.json that contradicts itself
    ) as error:
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise ModelError(
                f"the tokenizer in {folder} is code of its own (auto_map in tokenizer_config.json)."
                " Code runs from a model's own folder alone, never from an adapter's: read it, "
                "then name that model with model.trust_remote_code=true on the command line."
            ) from error
        first = str(error).strip().splitlines()[: 2 if error.__cause__ else 1]
        reason = " ".join(" ".join(first).split())
        raise ModelError(f"the tokenizer in {folder} does not load: {reason}") from error
