"""An answer ends where its turn does: a stop marker inside it is refused, however it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from graftlab.data.jsonl import JsonlData
from graftlab.errors import DataError
from graftlab.text.encode import encode
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation, Message
from text_tokenizers import CHATML, write_tokenizer

TAGS = "Use <answer>42</answer> and then explain why it is so."


def soft(folder: Path, *, normalized: bool = False) -> Tokenizer:
    """ChatML whose turns end with an added token that is no special one."""
    from tokenizers import AddedToken, normalizers
    from transformers import AutoTokenizer

    write_tokenizer(folder, CHATML.replace("<|im_end|>", "</answer>"))
    inner = AutoTokenizer.from_pretrained(folder)
    if normalized:
        inner.backend_tokenizer.normalizer = normalizers.Lowercase()
    inner.add_tokens([AddedToken("</answer>", normalized=normalized)], special_tokens=False)
    inner.save_pretrained(folder)
    return load_tokenizer(folder)


def talk(answer: str) -> Conversation:
    return Conversation((Message("user", "Show"), Message("assistant", answer)), "a.jsonl", 1)


def test_a_soft_stop_marker_is_reserved(tmp_path: Path) -> None:
    tokenizer = soft(tmp_path / "model")
    assert tokenizer.stop == "</answer>"
    assert tokenizer.reserved >= {"</answer>", "<|im_start|>"}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps([turn.as_dict() for turn in talk(TAGS).messages]) + "\n")
    with pytest.raises(DataError, match="reserved token </answer>"):
        JsonlData(train=str(file)).load(reserved=tokenizer.reserved)


@pytest.mark.parametrize("written", ["</answer>", "</ANSWER>"])
def test_no_answer_is_cut_at_a_stop_inside_it(tmp_path: Path, written: str) -> None:
    tokenizer = soft(tmp_path / "model", normalized=written != "</answer>")
    answer = TAGS.replace("</answer>", written)
    with pytest.raises(DataError, match=r"a\.jsonl:1: ") as caught:
        encode([talk(answer)], tokenizer, max_length=999, cache=tmp_path / "cache")
    assert "</answer>" in str(caught.value) or "marker tokens" in str(caught.value)
    (plain,) = encode([talk("Plain")], tokenizer, max_length=999, cache=tmp_path / "cache")
    assert plain.labels[-1] == tokenizer.stop_ids[0]


def test_what_templates_take_from_answers_is_not_reserved(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from text_tokenizers import TEMPLATES

    folder = write_tokenizer(tmp_path / "model", TEMPLATES["qwen3"])
    inner = AutoTokenizer.from_pretrained(folder)
    inner.add_tokens(["<think>", "</think>"], special_tokens=False)
    inner.save_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    assert "<think>" in tokenizer.markers
    assert not {"<think>", "</think>"} & tokenizer.reserved
    thinking = talk("<think>\nhm\n</think>\n\nYes.")
    (document,) = encode([thinking], tokenizer, max_length=999, cache=tmp_path / "cache")
    trained = document.labels[document.labels >= 0].tolist()
    assert "hm" in tokenizer.decode(trained, skip_special=False)


def test_markers_around_turns_are_reserved(chat_tokenizer: Callable[[str], Tokenizer]) -> None:
    assert chat_tokenizer("gemma").reserved >= {"<start_of_turn>", "<end_of_turn>"}
    assert chat_tokenizer("mistral").reserved >= {"[INST]", "[/INST]", "</s>"}


@pytest.mark.parametrize("kind", ["gemma", "chatml"])
def test_skipping_leaves_out_what_the_template_refuses(
    chat_tokenizer: Callable[[str], Tokenizer], tmp_path: Path, kind: str
) -> None:
    tokenizer = chat_tokenizer(kind)
    good = [Conversation(talk(f"Answer {n}").messages, "a.jsonl", n) for n in range(1, 4)]
    system = Conversation((Message("system", "S"), *good[0].messages), "a.jsonl", 8)
    tools = Conversation(good[0].messages, "a.jsonl", 9, ({"name": "f"},))
    rows = [good[0], system, good[1], tools, good[2]]
    refused = [1, 3] if kind == "gemma" else [3]
    for _ in range(2):  # encoded, then from the cache
        found = encode(rows, tokenizer, max_length=999, on_invalid="skip", cache=tmp_path / "cache")
        assert [one.index for one in found.refused] == refused
        assert found.refused[-1].reason.startswith("the row has tools")
        assert sorted(set(found.sources.tolist())) == [i for i in range(5) if i not in refused]
        with pytest.raises(DataError, match=r"a\.jsonl:9: the row has tools") as caught:
            encode(rows, tokenizer, max_length=999, cache=tmp_path / "cache")
        assert len(caught.value.problems) == len(refused)
    with pytest.raises(DataError, match="1 of 1 conversations"):
        encode([tools], tokenizer, max_length=999, on_invalid="skip", cache=tmp_path / "cache")
