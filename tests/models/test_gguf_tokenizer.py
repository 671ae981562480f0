"""The tokenizer that is made of a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from gguf_files import CONTROL, LETTERS, NORMAL, USER_DEFINED, sentencepiece, write_gguf
from graftlab.errors import ModelError
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.file import GGUFFile
from graftlab.models.gguf.pretokenizers import SPLITTINGS
from graftlab.models.gguf.vocabulary import write_tokenizer
from graftlab.models.hf import HFModel
from graftlab.types import Message

TEXTS = (
    "The second side opens with a slow waltz in 1974.",
    "  Größe — “quotes” \n\n\t 漢字 🎵 don't",
    "<|im_start|>user\nHi<|im_end|>\n",
)


@pytest.fixture(scope="module")
def path(make_miniature: Callable[[str], Path], tmp_path_factory: Any) -> Path:
    return write_gguf(make_miniature("qwen2"), tmp_path_factory.mktemp("gguf") / "qwen2.gguf")


def test_it_is_that_of_the_folder_the_file_was_made_of(path: Path, qwen2_folder: Path) -> None:
    ours = GGUFModel(path=str(path)).load_tokenizer()
    theirs = HFModel(path=str(qwen2_folder)).load_tokenizer()
    assert ours.encode_text(TEXTS) == theirs.encode_text(TEXTS)
    turns = [Message("user", "Hi"), Message("assistant", "Hello there")]
    for asks in (True, False):
        wanted = theirs.render(turns, generation_prompt=asks)
        assert ours.render(turns, generation_prompt=asks) == wanted
    assert (ours.stop, ours.stop_ids) == (theirs.stop, theirs.stop_ids)
    assert dict(ours.markers).items() >= {"<|im_end|>": ours.stop_ids[0]}.items()
    for ids in ours.encode_text(TEXTS):
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, skip_special=False)


def test_an_adapters_folder_gives_it_back(path: Path, tmp_path: Path) -> None:
    spec = GGUFModel(path=str(path))
    ours = spec.load_tokenizer()
    ours.save(tmp_path)
    again = spec.load_tokenizer(tmp_path)
    assert again.encode_text(TEXTS) == ours.encode_text(TEXTS)
    assert again.template == ours.template


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer__ggml__pre": "spiral"}, "tokenizer.ggml.pre=spiral.*smollm.*model=hf"),
        ({"tokenizer__ggml__pre": "qwen-2"}, "Did you mean"),
        ({"tokenizer__ggml__pre": None}, "no tokenizer.ggml.pre"),
        ({"tokenizer__ggml__model": "bert"}, "of the kind bert"),
        ({"tokenizer__ggml__tokens": None}, "holds no tokens"),
        ({"tokenizer__ggml__merges": None}, "holds no merges"),
        ({"tokenizer__ggml__token_type": [1, 1]}, "token_type is not of as many"),
        ({"tokenizer__ggml__eos_token_id": 4000}, "eos_token_id is 4000"),
        ({"tokenizer__ggml__eos_token_id": "2"}, "eos_token_id is '2'"),
        ({"tokenizer__ggml__eos_token_id": 1.5}, "eos_token_id is 1.5"),
        ({"tokenizer__ggml__token_type": 1}, "holds no token_type"),
        ({"tokenizer__ggml__tokens": [1] * 400}, "tokens is a list of another kind"),
        ({"tokenizer__ggml__tokens": ["a" * 2000]}, "a token of over 1,024"),
        ({"tokenizer__ggml__merges": [1]}, "merges is a list of another kind"),
        ({"tokenizer__ggml__pre": [1]}, "pre=.1."),
        ({"template": False, "tokenizer__chat_template": 5}, "chat_template is no text"),
        ({"template": False, "tokenizer__chat_template": "x" * 2**21}, "no text of up to"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(
    make_miniature: Callable[[str], Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_gguf(make_miniature("qwen2"), tmp_path / "odd.gguf", **changes)
    with pytest.raises(ModelError, match=message):
        GGUFModel(path=str(path)).check()


@pytest.mark.parametrize("merge", ["abc", "zz yy"])
def test_merges_that_do_not_fit_the_tokens_are_told(
    make_miniature: Callable[[str], Path], tmp_path: Path, merge: str
) -> None:
    odd = {"tokenizer__ggml__merges": [merge]}
    path = write_gguf(make_miniature("qwen2"), tmp_path / "odd.gguf", **odd)
    with pytest.raises(ModelError, match=r"odd.gguf: .* make no tokenizer") as caught:
        GGUFModel(path=str(path)).load_tokenizer()
    assert "\n" not in str(caught.value)


SPLIT = "it's I'LL 1234567 x=y\r\n\r\n  two,  tabs\t\tüber HelloWorld"


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("gpt-2", ["it", "'s", " I", "'", "LL", " 1234567"]),
        ("smollm", ["it", "'s", " I", "'", "LL", " ", "1", "2", "3", "4", "5", "6", "7"]),
        ("llama-bpe", ["it", "'s", " I", "'LL", " ", "123", "456", "7"]),
        ("qwen2", ["it", "'s", " I", "'LL", " ", "1", "2", "3", "4", "5", "6", "7"]),
        ("tekken", ["it", "'s", " I", "'LL", " ", "1", "2", "3", "4", "5", "6", "7"]),
        ("gpt-4o", ["it's", " I'LL", " ", "123", "456", "7"]),
    ],
)
def test_text_is_split_as_the_name_says(path: Path, name: str, pieces: list[str]) -> None:
    """The same text, split as the models' own tokenizers split it."""
    made = tokenizer_of(path, pre=name)
    found = [SPLIT[start:end] for _, (start, end) in made.pre_tokenizer.pre_tokenize_str(SPLIT)]
    assert found[: len(pieces)] == pieces
    assert "".join(found) == SPLIT
    assert name in SPLITTINGS


def tokenizer_of(path: Path, **changes: Any) -> Tokenizer:
    from graftlab.models.gguf.file import read_gguf

    file = read_gguf(path)
    told = {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return made_of({**file.metadata, **told}, path.parent)


def made_of(metadata: dict[str, Any], folder: Path) -> Tokenizer:
    write_tokenizer(GGUFFile(folder / "x.gguf", (), metadata, {}), folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_the_pair_with_the_best_score_is_merged_first(tmp_path: Path) -> None:
    pieces = [("ab", -3.0, NORMAL), ("bc", -2.0, NORMAL), ("abc", -9.0, NORMAL)]
    made = made_of(sentencepiece([*LETTERS, *pieces], add_space_prefix=False), tmp_path)
    assert made.encode("abc").tokens == ["abc"]  # a + bc
    assert made.encode("abb").tokens == ["ab", "b"]
    without = made_of(sentencepiece([*LETTERS, *pieces[:2]], add_space_prefix=False), tmp_path)
    assert without.encode("abc").tokens == ["a", "bc"]


@pytest.mark.parametrize("prefix", [True, False, None])
def test_a_space_is_put_before_text_unless_the_file_says_no(
    tmp_path: Path, prefix: bool | None
) -> None:
    more = {} if prefix is None else {"add_space_prefix": prefix}
    made = made_of(sentencepiece([*LETTERS, ("\u2581a", -1.0, NORMAL)], **more), tmp_path)
    first = ["a", "\u2581a"] if prefix is False else ["\u2581a", "\u2581a"]
    assert made.encode("a a").tokens == first
    assert made.decode(made.encode("a a").ids) == "a a"


def test_other_characters_become_bytes_and_come_back(tmp_path: Path) -> None:
    made = made_of(sentencepiece(LETTERS, add_space_prefix=False), tmp_path)
    found = made.encode("aéb")
    assert found.tokens == ["a", "<0xC3>", "<0xA9>", "b"]
    assert made.decode(found.ids) == "aéb"


def test_markers_are_matched_whole_and_only_control_ones_are_special(tmp_path: Path) -> None:
    marked = [("<turn>", 0.0, CONTROL), ("<tag>", 0.0, USER_DEFINED)]
    made = made_of(sentencepiece([*LETTERS, *marked], add_space_prefix=False), tmp_path)
    found = made.encode("a<turn>b<tag>c")
    assert found.tokens == ["a", "<turn>", "b", "<tag>", "c"]
    assert made.decode(found.ids) == "ab<tag>c"


def test_phi_3_leaves_out_spaces_behind_its_markers(tmp_path: Path) -> None:
    marked = [("<|end|>", 0.0, CONTROL)]
    told = sentencepiece([*LETTERS, *marked], add_space_prefix=False)
    assert len(made_of(told, tmp_path).encode("a<|end|> b").tokens) == 4
    made = made_of({**told, "general.name": "Phi-3 Mini"}, tmp_path)
    assert len(made.encode("a<|end|> b").ids) == 3
    assert made.encode("a<s> b").tokens == ["a", "<s>", "\u2581", "b"]
