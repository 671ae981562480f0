"""Tokenizers that the tests of text and data share, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from text_tokenizers import TEMPLATES, write_sentencepiece, write_tokenizer


@pytest.fixture(scope="session")
def chat_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    """`chat_tokenizer("llama3")` is a tokenizer with a template of that shape."""
    made: dict[str, Tokenizer] = {}

    def tokenizer(kind: str) -> Tokenizer:
        if kind not in made:
            folder = tmp_path_factory.mktemp("tokenizers") / kind
            made[kind] = load_tokenizer(write_tokenizer(folder, TEMPLATES[kind]))
        return made[kind]

    return tokenizer


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """`sentencepiece_folder(True)` has ChatML markers in its vocabulary."""
    made: dict[bool, Path] = {}

    def folder(markers: bool) -> Path:
        if markers not in made:
            home = tmp_path_factory.mktemp("sentencepiece")
            made[markers] = write_sentencepiece(home, markers=markers)
        return made[markers]

    return folder
