"""Two tokenizers are the same where equal text has equal ids, whatever their templates say."""

from __future__ import annotations

import json
import shutil

import pytest

from graftlab.text.load import load_tokenizer
from graftlab.text.same import vocabulary_difference


@pytest.fixture
def changed(qwen2_folder, tmp_path):
    """`changed(edit)` is the tokenizer after `edit(content of tokenizer.json)`."""

    def load(edit):
        folder = tmp_path / "changed"
        shutil.copytree(qwen2_folder, folder)
        content = json.loads((folder / "tokenizer.json").read_text())
        edit(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))
        return load_tokenizer(folder)

    return load


def swap(content, one: int, other: int) -> None:
    vocabulary = content["model"]["vocab"]
    pieces = {index: piece for piece, index in vocabulary.items()}
    vocabulary[pieces[one]], vocabulary[pieces[other]] = other, one


def test_the_same_vocabulary_under_another_template(qwen2_folder, tmp_path):
    (tmp_path / "other.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
    )
    ours = load_tokenizer(qwen2_folder)
    theirs = load_tokenizer(qwen2_folder, template=str(tmp_path / "other.jinja"))
    assert ours.fingerprint != theirs.fingerprint
    assert vocabulary_difference(ours, theirs) is None


def test_ids_that_common_text_uses(qwen2_folder, changed):
    ours = load_tokenizer(qwen2_folder)
    a, b = ours.encode_text(["a"])[0][0], ours.encode_text(["b"])[0][0]
    theirs = changed(lambda content: swap(content, a, b))
    assert "other ids" in vocabulary_difference(ours, theirs)


def test_ids_that_no_probe_uses(qwen2_folder, changed):
    """Bytes of no valid text: only the pieces themselves tell."""
    ours = load_tokenizer(qwen2_folder)
    vocabulary = json.loads((qwen2_folder / "tokenizer.json").read_text())["model"]["vocab"]
    rare = [vocabulary[piece] for piece in ("õ", "ö")]  # 0xF5 and 0xF6 in byte-level BPE
    theirs = changed(lambda content: swap(content, *rare))
    assert f"id {min(rare)} is " in (vocabulary_difference(ours, theirs) or "")


def test_a_token_more(qwen2_folder, changed):
    def add(content):
        last = dict(content["added_tokens"][-1])
        content["added_tokens"].append({**last, "id": 400, "content": "<|more|>"})

    ours = load_tokenizer(qwen2_folder)
    assert "400 tokens against 401" in vocabulary_difference(ours, changed(add))
