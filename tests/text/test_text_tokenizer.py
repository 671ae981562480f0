"""Loading tokenizers: what is refused, what comes back, and what the file itself says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from graftlab.errors import ConfigError, ModelError
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Message
from text_tokenizers import CHATML, TEMPLATES, write_tokenizer

Maker = Callable[[str], Tokenizer]
Folder = Callable[[bool], Path]
CHAT = (
    Message("system", "Be brief."),
    Message("user", "Two\n\nlines,  spaces"),
    Message("assistant", "Über 🎵!"),
)
STOPS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
}


@pytest.mark.parametrize("kind", STOPS)
def test_the_stop_token_is_what_the_template_ends_answers_with(
    chat_tokenizer: Maker, kind: str
) -> None:
    tokenizer = chat_tokenizer(kind)
    assert tokenizer.stop == STOPS[kind]
    assert tokenizer.pieces(tokenizer.stop_ids[:1]) == [STOPS[kind]]
    assert set(tokenizer.pieces(tokenizer.stop_ids)) == {STOPS[kind], "</s>"}
    assert tokenizer.reserved >= {STOPS[kind], "</s>"}


@pytest.mark.parametrize("kind", [k for k in TEMPLATES if k != "gemma"])
def test_rendering_is_what_transformers_renders(chat_tokenizer: Maker, kind: str) -> None:
    tokenizer = chat_tokenizer(kind)
    for prompt in (True, False):
        own = tokenizer.render(CHAT, generation_prompt=prompt)
        whole = getattr(tokenizer, "_whole", tokenizer)
        theirs = whole._inner.apply_chat_template(  # type: ignore[attr-defined]
            [m.as_dict() for m in CHAT], add_generation_prompt=prompt, return_dict=False
        )
        assert own == theirs


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_saved_tokenizer_comes_back_the_same(
    chat_tokenizer: Maker, kind: str, tmp_path: Path
) -> None:
    tokenizer = chat_tokenizer(kind)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.stop_ids, again.reserved) == (tokenizer.stop_ids, tokenizer.reserved)
    messages = CHAT[1:]
    assert again.render(messages, generation_prompt=False) == tokenizer.render(
        messages, generation_prompt=False
    )


@pytest.mark.parametrize("markers", [True, False])
def test_sentencepiece_round_trips(
    sentencepiece_folder: Folder, markers: bool, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(sentencepiece_folder(markers), template="chatml")
    ids = tokenizer.render(CHAT, generation_prompt=True)
    text = tokenizer.render_text(CHAT, generation_prompt=True)
    assert tokenizer.decode(ids, skip_special=False) == text
    assert "Two\n\nlines,  spaces" in text
    stop = "<|im_end|>" if markers else "</s>"
    assert tokenizer.stop == stop
    assert ids.count(tokenizer.stop_ids[0]) == 3
    assert stop not in tokenizer.decode(ids)
    assert "".join(tokenizer.pieces(ids[:5])) == text[: len("".join(tokenizer.pieces(ids[:5])))]
    assert bool(tokenizer.notes) == (not markers)
    assert "<|im_start|>" in tokenizer.reserved
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.render(CHAT, generation_prompt=True) == ids


def test_a_bare_model_file_needs_a_template(sentencepiece_folder: Folder) -> None:
    file = sentencepiece_folder(True) / "tokenizer.model"
    with pytest.raises(ModelError, match=r"model\.template=chatml"):
        load_tokenizer(file)
    assert load_tokenizer(file, template="chatml").stop == "<|im_end|>"


def test_chatml_lists_tools_with_and_without_a_system_turn(sentencepiece_folder: Folder) -> None:
    tokenizer = load_tokenizer(sentencepiece_folder(True), template="chatml")
    tools = ({"name": "search", "description": "naïve"},)
    for messages in (CHAT, CHAT[1:]):
        text = tokenizer.render_text(messages, tools=tools, generation_prompt=False)
        first = text.split("<|im_end|>")[0]
        assert first.startswith("<|im_start|>system\n")
        assert '{"name": "search", "description": "naïve"}' in first
        assert text.count("<|im_start|>system") == 1
    assert "functions" not in tokenizer.render_text(CHAT, generation_prompt=False)


def test_templates_from_files_and_their_mistakes(
    sentencepiece_folder: Folder, tmp_path: Path
) -> None:
    folder = sentencepiece_folder(True)
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}")
    assert load_tokenizer(folder, template=str(own)).stop == "</s>"
    own.write_text("{% for m in messages %}{{ m.content }}")
    with pytest.raises(ModelError, match="not valid Jinja"):
        load_tokenizer(folder, template=str(own))
    with pytest.raises(ConfigError, match="Did you mean `chatml`"):
        load_tokenizer(folder, template="chatlm")
    own.write_text("{% for m in messages %}{{ m.role + ': ' + m.content + '\n\n' }}{% endfor %}")
    with pytest.raises(ModelError, match="could not learn to stop"):
        load_tokenizer(folder, template=str(own))


def test_a_prompt_that_is_no_prefix_is_refused(tmp_path: Path) -> None:
    announces = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif")
    assert announces != CHATML
    with pytest.raises(ModelError, match="no assistant mask can be derived"):
        load_tokenizer(write_tokenizer(tmp_path, announces))


def test_a_base_model_without_template_is_told_what_to_set(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, None)
    with pytest.raises(ModelError, match=r"model\.template=chatml"):
        load_tokenizer(folder)
    assert load_tokenizer(folder, template="chatml").stop == "<|im_end|>"


def test_folders_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path, template="chatml")


def test_where_transformers_rebuilds_the_tokenizer_the_file_wins(
    tmp_path: Path, qwen2_folder: Path
) -> None:
    from tokenizers import Tokenizer as Raw
    from transformers import AutoTokenizer

    folder = write_tokenizer(tmp_path / "odd", CHATML)
    # A word-level or differently split tokenizer beside a Qwen2 config is rebuilt as Qwen2's.
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("TokenizersBackend", "Qwen2Tokenizer"))
    shutil.copy(qwen2_folder / "config.json", folder / "config.json")
    text = "It's 1984:  don't\n\n panic"
    direct = Raw.from_file(str(folder / "tokenizer.json"))
    wanted = direct.encode(text, add_special_tokens=False).ids
    assert AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False) != wanted

    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode_text([text]) == [wanted]
    assert "the file is used as it is" in tokenizer.notes[0]
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.encode_text([text]) == [wanted]
    assert again.notes == ()
    assert again.stop_ids == tokenizer.stop_ids


def test_tokenizers_written_in_python(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    slow = ByT5Tokenizer()
    slow.chat_template = TEMPLATES["mistral"].replace("bos_token", "''")
    slow.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer.render(CHAT, generation_prompt=False)
    assert tokenizer.stop == "</s>"
    assert ids[-1] == tokenizer.stop_ids[0]
    assert tokenizer.decode(ids).endswith("Über 🎵!")
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint


def test_an_honest_folder_gives_no_note(qwen2_folder: Path) -> None:
    tokenizer = load_tokenizer(qwen2_folder)
    assert tokenizer.notes == ()
    ids = tokenizer.render(CHAT, generation_prompt=True)
    assert "Über 🎵!" in tokenizer.decode(ids)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
