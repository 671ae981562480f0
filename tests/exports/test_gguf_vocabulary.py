"""Tokenizers in a GGUF file's words, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gguf_files import LETTERS, NORMAL, sentencepiece
from graftlab.errors import ModelError
from graftlab.exports.gguf.checking import TEXTS
from graftlab.exports.gguf.vocabulary import splitting_name, vocabulary
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.file import GGUFFile, read_gguf
from graftlab.models.gguf.packages import PACKAGES
from graftlab.models.gguf.pretokenizers import SPLITTINGS
from graftlab.models.gguf.vocabulary import SPACE, write_tokenizer
from graftlab.text.load import load_tokenizer

CHAT = (
    "{% for message in messages %}<turn>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<turn>{% endif %}"
)
PIECES = [("ab", -3.0, NORMAL), ("bc", -2.0, NORMAL), ("abc", -9.0, NORMAL), ("<turn>", 0.0, 3)]
PIECES += [("<end>", 0.0, 3), ("<eos>", 0.0, 3), (f"{SPACE}a", -1.0, NORMAL)]


def folder_of(metadata: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    write_tokenizer(GGUFFile(folder / "x.gguf", (), metadata, {}), folder)
    return folder


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_goes_into_a_file_and_comes_back(tmp_path: Path, prefix: bool) -> None:
    metadata = sentencepiece([*LETTERS, *PIECES], add_space_prefix=prefix, bos_token_id=1)
    metadata |= {"tokenizer.chat_template": CHAT}
    metadata["tokenizer.ggml.eos_token_id"] = metadata["tokenizer.ggml.tokens"].index("<eos>")
    trained = load_tokenizer(folder_of(metadata, tmp_path / "trained"))
    rows = len(metadata["tokenizer.ggml.tokens"]) + 3
    told = vocabulary(trained, rows=rows, name="mine")
    assert told["tokenizer.ggml.model"] == "llama"
    assert told["tokenizer.ggml.add_space_prefix"] is prefix
    tokens = [*metadata["tokenizer.ggml.tokens"], *(f"[PAD{n}]" for n in range(rows - 3, rows))]
    assert told["tokenizer.ggml.tokens"] == tokens
    types = [*metadata["tokenizer.ggml.token_type"], 5, 5, 5]
    assert told["tokenizer.ggml.token_type"] == types
    again = load_tokenizer(folder_of({**told, "general.architecture": "llama"}, tmp_path / "again"))
    for text in ("abc", "abb", "a abc é", "<turn>ab<end> a"):
        assert again.encode_text([text]) == trained.encode_text([text])
    assert again.stop == trained.stop == "<end>"


def test_every_end_of_a_reply_has_its_key(tmp_path: Path) -> None:
    """The one that templates write as eos_token, and the one that ends a turn."""
    metadata = sentencepiece([*LETTERS, *PIECES]) | {"tokenizer.chat_template": CHAT}
    eos = metadata["tokenizer.ggml.tokens"].index("<eos>")
    metadata["tokenizer.ggml.eos_token_id"] = eos
    tokenizer = load_tokenizer(folder_of(metadata, tmp_path / "both"))
    told = vocabulary(tokenizer, rows=300, name="mine")
    assert told["tokenizer.ggml.eos_token_id"] == eos
    assert told["tokenizer.ggml.eot_token_id"] == eos - 1 == tokenizer.stop_ids[0]
    assert "tokenizer.ggml.eom_token_id" not in told
    assert told["tokenizer.chat_template"] == CHAT


@pytest.mark.parametrize("name", ["Phi-3 Mini", "other"])
def test_spaces_behind_markers_are_left_out_by_the_name(tmp_path: Path, name: str) -> None:
    """llama.cpp does it for files that are called Phi-3, and so do those tokenizers."""
    metadata = sentencepiece([*LETTERS, *PIECES]) | {"tokenizer.chat_template": CHAT}
    metadata["general.name"] = name
    trained = load_tokenizer(folder_of(metadata, tmp_path / "trained"))
    strips = len(trained.encode_text(["<turn> a"])[0]) == len(trained.encode_text(["<turn>a"])[0])
    assert strips == (name == "Phi-3 Mini"), "the case occurs"
    for called in ("mine", "my phi3"):
        told = vocabulary(trained, rows=300, name=called)
        assert ("phi" in told["general.name"].lower()) == strips
        place = tmp_path / called.replace(" ", "-")
        again = load_tokenizer(folder_of({**told, "general.architecture": "llama"}, place))
        assert again.encode_text(["<turn> a<end> b"]) == trained.encode_text(["<turn> a<end> b"])


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o"])
def test_a_split_is_found_by_its_patterns(name: str, qwen2_folder: Path) -> None:
    rules = json.loads((qwen2_folder / "tokenizer.json").read_text())
    splits: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in SPLITTINGS[name].patterns
    ]
    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    rules["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*splits, last]}
    rules["model"]["ignore_merges"] = SPLITTINGS[name].whole_words
    assert splitting_name(rules) == name
    if name == "smollm":  # as its own file says it
        steps = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}]
        rules["pre_tokenizer"]["pretokenizers"] = steps
        assert splitting_name(rules) == name


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
        {"normalizer": {"type": "Lowercase"}},
    ],
)
def test_an_unknown_split_is_refused(changes: dict[str, Any], qwen2_folder: Path) -> None:
    rules = json.loads((qwen2_folder / "tokenizer.json").read_text())
    assert splitting_name(rules) == "qwen2"
    with pytest.raises(ModelError, match="no name that is known here.*other tokens"):
        splitting_name(rules | changes)


def test_other_kinds_are_refused(
    make_miniature: Callable[[str], Path], tmp_path: Path, qwen2_folder: Path
) -> None:
    import shutil

    folder = tmp_path / "odd"
    shutil.copytree(qwen2_folder, folder)
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(ModelError, match="BPE alone"):
        vocabulary(load_tokenizer(folder), rows=400, name="mine")


@pytest.mark.slow
@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_real_vocabularies_come_back(package: str, tmp_path: Path) -> None:
    """Of a file, into a folder of transformers, and into a file again: what llama.cpp reads."""
    cache = os.environ.get("GRAFTLAB_REAL_MODELS", "")
    path = Path(cache) / "models" / PACKAGES[package].file
    if not cache or not path.is_file():
        pytest.skip(f"{package} is not in GRAFTLAB_REAL_MODELS")
    original = read_gguf(path).metadata
    tokenizer = GGUFModel(path=str(path), template="chatml").load_tokenizer()
    told = vocabulary(tokenizer, rows=len(original["tokenizer.ggml.tokens"]), name="mine")
    assert told["tokenizer.ggml.model"] == original["tokenizer.ggml.model"]
    assert told["tokenizer.ggml.pre"] == original["tokenizer.ggml.pre"]
    for key in ("tokens", "merges", "bos_token_id", "eos_token_id", "add_space_prefix"):
        key = f"tokenizer.ggml.{key}"
        assert told.get(key) == original.get(key), key
    pairs = zip(*(one["tokenizer.ggml.token_type"] for one in (told, original)), strict=True)
    assert sum(ours != theirs for ours, theirs in pairs) < 10
    again = load_tokenizer(folder_of({**told, "general.architecture": "llama"}, tmp_path / "x"))
    assert again.encode_text(TEXTS) == tokenizer.encode_text(TEXTS)
