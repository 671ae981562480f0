"""What a Hugging Face tokenizer is, remembered from process to process, so that it loads when used.

transformers, PyTorch with it, and a vocabulary of 150,000 tokens take seconds of processor time to
load; whoever finds the tokens in the cache needs a few lines of it:

    CACHE/tokenizers/KEY.json    markers, stop tokens, fingerprint, notes, template

KEY is a hash of every file that a tokenizer is made from, of the template asked for, of the two
packages' versions and of this code. Ids become text by `tokenizer.json` alone; what renders or
encodes loads the tokenizer. Where its code comes with the files, nothing is remembered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graftlab.caches import default_cache
from graftlab.files.checksums import check_file, checksum, write_checked
from graftlab.files.reading import read_json
from graftlab.text.hf import HFTokenizer, shown_piece
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Message

_MADE_FROM = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "additional_chat_templates/*")
_ATTRIBUTES = ("fingerprint", "vocab_size", "template", "markers", "stop", "bos")
_PACKAGES = ("transformers", "tokenizers")


def hf_tokenizer(folder: Path, *, template: str | None, trust_remote_code: bool) -> Tokenizer:
    """The tokenizer of a folder; not yet loaded where it is known from before."""
    if trust_remote_code or not (folder / "tokenizer.json").is_file():
        return HFTokenizer(folder, template=template, trust_remote_code=trust_remote_code)
    file = default_cache() / "tokenizers" / f"{_key(folder, template)}.json"
    if (facts := _read(file)) is not None:
        return RememberedTokenizer(folder, template, facts)
    found = HFTokenizer(folder, template=template)
    if found.decodes_as_file:
        _write(file, found)
    return found


class RememberedTokenizer(Tokenizer):
    """A tokenizer whose facts are known; whatever else it is asked for loads it."""

    def __init__(self, folder: Path, template: str | None, facts: dict[str, Any]) -> None:
        self._folder, self._asked = folder, template
        self.fingerprint, self.vocab_size = facts["fingerprint"], facts["vocab_size"]
        self.template, self.stop, self.bos = facts["template"], facts["stop"], facts["bos"]
        self.markers = facts["markers"]
        self.reserved = frozenset(facts["reserved"])
        self.stop_ids, self.notes = tuple(facts["stop_ids"]), tuple(facts["notes"])

    @cached_property
    def _whole(self) -> HFTokenizer:
        return HFTokenizer(self._folder, template=self._asked)

    @cached_property
    def _file(self) -> Any:
        from tokenizers import Tokenizer as FileTokenizer

        return FileTokenizer.from_file(str(self._folder / "tokenizer.json"))

    def render_text(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool,
    ) -> str:
        self._whole.date = self.date
        return self._whole.render_text(messages, tools=tools, generation_prompt=generation_prompt)

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        return self._whole.encode_text(texts)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        text = self._file.decode(list(ids), skip_special_tokens=skip_special)
        assert isinstance(text, str)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        raw = (str(self._file.id_to_token(index)) for index in ids)
        texts = (self.decode([index], skip_special=False) for index in ids)
        return [shown_piece(one, text) for one, text in zip(raw, texts, strict=True)]

    def token_bytes(self) -> list[bytes | None]:
        return self._whole.token_bytes()

    def save(self, folder: Path) -> None:
        self._whole.save(folder)


def _key(folder: Path, template: str | None) -> str:
    digest = hashlib.sha256()
    files = {file for pattern in _MADE_FROM for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(files):
        digest.update(f"{file.relative_to(folder)} {checksum(file)}\n".encode())
    if template is not None and Path(template).expanduser().is_file():
        digest.update(Path(template).expanduser().read_bytes())
    told = [template, *(version(package) for package in _PACKAGES)]
    digest.update(json.dumps(told).encode())
    for source in sorted(Path(__file__).parent.glob("**/*")):
        if source.suffix in (".py", ".jinja"):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def _read(file: Path) -> dict[str, Any] | None:
    """The facts; None where there are none, or they are not as they were written."""
    try:
        if check_file(file):
            facts = read_json(file)
            return facts if isinstance(facts, dict) else None
    except (OSError, ValueError):
        pass
    return None


def _write(file: Path, found: HFTokenizer) -> None:
    """Remember it; a cache that cannot be written costs the next process its time."""
    facts: dict[str, Any] = {name: getattr(found, name) for name in _ATTRIBUTES}
    lists = {name: list(getattr(found, name)) for name in ("stop_ids", "notes")}
    facts |= {**lists, "markers": dict(found.markers), "reserved": sorted(found.reserved)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_checked(file, json.dumps(facts))
    except OSError:
        return
