"""A tokenizer that is known from before loads when it is used, and is the same in everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graftlab.text.cached_tokenizer import RememberedTokenizer
from graftlab.text.hf import HFTokenizer
from graftlab.text.load import load_tokenizer
from graftlab.types import Message
from text_tokenizers import CHATML, QWEN25, write_tokenizer

FACTS = ("fingerprint", "vocab_size", "template", "stop", "stop_ids", "reserved", "notes", "bos")
TEXT = "A slow waltz, naïve 🎵.\n\n - one"
CHAT = [Message("user", "Hi"), Message("assistant", TEXT)]

SCRIPT = """
import sys
from pathlib import Path
from graftlab.text.load import load_tokenizer
tokenizer = load_tokenizer(Path(sys.argv[1]))
ids = [tokenizer.stop_ids[0], 40, 50]
print(tokenizer.fingerprint, tokenizer.decode(ids), tokenizer.pieces(ids))
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("scheme", [None, "always", "never"])
def test_it_is_the_same_in_everything(tmp_path: Path, cache: Path, scheme: str | None) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", CHATML, metaspace=scheme)
    first, again = load_tokenizer(folder), load_tokenizer(folder)
    assert isinstance(first, HFTokenizer)
    assert isinstance(again, RememberedTokenizer)
    assert [getattr(again, name) for name in FACTS] == [getattr(first, name) for name in FACTS]
    assert dict(again.markers) == dict(first.markers)
    every = range(first.vocab_size)
    assert again.pieces(every) == first.pieces(every)
    ids = first.render(CHAT, generation_prompt=False)
    for skip in (True, False):
        assert again.decode(ids, skip_special=skip) == first.decode(ids, skip_special=skip)
    assert "_whole" not in vars(again)
    assert again.render(CHAT, generation_prompt=False) == ids
    assert "_whole" in vars(again)


def test_what_knows_it_loads_neither_torch_nor_transformers(tmp_path: Path, cache: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", CHATML)
    said = []
    for _ in range(2):
        command = [sys.executable, "-c", SCRIPT, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said.append(done.stdout.splitlines())
    assert said[0][0] == said[1][0]
    assert "transformers" in said[0][1]
    assert said[1][1] == "[]"


def test_another_file_is_another_tokenizer(tmp_path: Path, cache: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", CHATML)
    before = load_tokenizer(folder)
    assert isinstance(load_tokenizer(folder), RememberedTokenizer)
    (folder / "chat_template.jinja").write_text(QWEN25 + CHATML)
    other = load_tokenizer(folder)
    assert isinstance(other, HFTokenizer)
    assert other.fingerprint != before.fingerprint
    assert load_tokenizer(folder).template == QWEN25 + CHATML


def test_damaged_facts_are_made_anew(tmp_path: Path, cache: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", CHATML)
    whole = load_tokenizer(folder)
    (file,) = (cache / "tokenizers").glob("*.json")
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "stop": "</s>"}))
    assert isinstance(load_tokenizer(folder), HFTokenizer)
    assert load_tokenizer(folder).stop == whole.stop
    assert isinstance(load_tokenizer(folder), RememberedTokenizer)


def test_nothing_is_remembered_where_the_files_bring_code(tmp_path: Path, cache: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", CHATML)
    for _ in range(2):
        assert isinstance(load_tokenizer(folder, trust_remote_code=True), HFTokenizer)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "file"))
    folder = write_tokenizer(tmp_path / "tokenizer", CHATML)
    for _ in range(2):
        assert isinstance(load_tokenizer(folder), HFTokenizer)
