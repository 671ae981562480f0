"""The tokenizer that lies in a folder, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from graftlab.errors import ModelError
from graftlab.registry import load_rooms
from graftlab.text.cached_tokenizer import hf_tokenizer
from graftlab.text.spm import SentencePieceTokenizer
from graftlab.text.tokenizer import Tokenizer

Recogniser = Callable[[Path], Tokenizer | None]

_RECOGNISERS: list[Recogniser] = []


def register_tokenizer(recognise: Recogniser) -> None:
    """Have `recognise` asked about folders: the tokenizer there, or None if it is another kind's.

    It is asked before the kinds below, unless a template is named.
    """
    _RECOGNISERS.append(recognise)


def load_tokenizer(
    folder: Path, *, template: str | None = None, trust_remote_code: bool = False
) -> Tokenizer:
    """The tokenizer that lies in `folder` (or a bare SentencePiece `.model` file).

    `template` is a known name (`chatml`) or a Jinja file; None takes the folder's own.
    Raises ModelError when there is no tokenizer, no template, or one without a stop token.
    """
    if folder.is_file():
        return SentencePieceTokenizer(folder, template=template)
    load_rooms()
    for recognise in _RECOGNISERS if template is None else ():
        if (found := recognise(folder)) is not None:
            return found
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if names & {"tokenizer.json", "tokenizer_config.json"}:
        return hf_tokenizer(folder, template=template, trust_remote_code=trust_remote_code)
    if "tokenizer.model" in names:
        return SentencePieceTokenizer(folder / "tokenizer.model", template=template)
    state = "holds no" if folder.is_dir() else "does not exist, so there is no"
    raise ModelError(
        f"{folder} {state} tokenizer: expected tokenizer.json, tokenizer_config.json or "
        "tokenizer.model there."
    )
