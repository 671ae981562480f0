"""The miniatures themselves: what the other tests rely on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from miniatures import KINDS, TRANSFORMERS

TEXT = "Hello  wörld, 1974!\n\n <|im_start|>user\nIt's late<|im_end|>\n"


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_is_what_its_file_says(
    kind: str, make_miniature: Callable[[str], Path]
) -> None:
    folder = make_miniature(kind)
    loaded = AutoTokenizer.from_pretrained(folder)
    ids = loaded(TEXT, add_special_tokens=False).input_ids
    assert ids == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    assert loaded.decode(ids) == TEXT
    assert loaded.chat_template
    assert len(loaded) == 400


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_logits_are_not_trivial(kind: str, make_miniature: Callable[[str], Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_miniature(kind))
    with torch.no_grad():
        logits = model(torch.arange(3, 50)[None]).logits
    assert logits.std() > 0.2
    assert len(logits[0].argmax(-1).unique()) > 5
