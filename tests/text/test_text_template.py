"""Templates are programs of others: what they raise is said with the row, their tags are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graftlab.errors import DataError, ModelError
from graftlab.text.encode import encode
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import IGNORE, Conversation, Message
from text_tokenizers import CHATML, write_tokenizer

Load = Callable[[str], Tokenizer]


@pytest.fixture(params=["hf", "sentencepiece"])
def load(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sentencepiece_folder: Callable[[bool], Path],
) -> Load:
    """A function from a template's text to a tokenizer that renders with it."""

    def tokenizer(template: str) -> Tokenizer:
        file = tmp_path / "template.jinja"
        file.write_text(template, encoding="utf-8")
        if request.param == "sentencepiece":
            return load_tokenizer(sentencepiece_folder(True), template=str(file))
        return load_tokenizer(write_tokenizer(tmp_path / "hf", None), template=str(file))

    return tokenizer


def chat(*contents: str, line: int = 1) -> Conversation:
    turns = [
        Message("assistant" if number % 2 else "user", content)
        for number, content in enumerate(contents)
    ]
    return Conversation(tuple(turns), "rows.jsonl", line)


FAULTS = {
    "TypeError": "{{ m.meta | tojson }}",
    "UndefinedError": "{{ m.meta.key }}",
    "ZeroDivisionError": "{{ 1 // 0 }}",
    "RecursionError": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "OverflowError": "{% for i in range(1000000000) %}{% endfor %}",
    "SecurityError": "{{ m.content.__class__.__mro__ }}",
}


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_a_template_raises_is_told_with_the_row(name: str, load: Load) -> None:
    fault = "{% if 'weather' in m.content %}" + FAULTS[name] + "{% endif %}"
    tokenizer = load(CHATML.replace("{% for m in messages %}", "{% for m in messages %}" + fault))
    rows = [chat("Hi", "Hello."), chat("The weather?", "Rain.", line=2), chat("Bye", "Yes.")]
    with pytest.raises(DataError) as caught:
        encode(rows, tokenizer, max_length=200)
    problem = "\n".join(caught.value.problems)
    assert problem.startswith(f"rows.jsonl:2: the chat template fails: {name}")
    assert len(caught.value.problems) == 1


def test_a_template_that_always_fails_is_told_without_a_row(load: Load) -> None:
    fault = "{% if tools | length > 0 %}{{ tools }}{% endif %}"
    with pytest.raises(ModelError, match=r"chat template fails: TypeError: .*NoneType"):
        load(fault + CHATML)
    with pytest.raises(ModelError, match="not valid Jinja"):
        load("{% for m in messages %}")
    with pytest.raises(ModelError, match="refuses it: no thanks"):
        load("{{ raise_exception('no thanks') }}")


GENERATION = (
    "{%- for m in messages %}\n"
    "    {%- if m.role == 'assistant' %}\n"
    "        {{- '<|im_start|>assistant\\n' }}\n"
    "        {%- generation %}\n"
    "            {{- m.content + ('' if loop.first else '<|im_end|>') }}\n"
    "        {%- endgeneration %}\n"
    "        {{- '\\n' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}\n"
)
"""As templates mark what the assistant wrote, for transformers' own masks."""


def test_generation_blocks_are_as_if_they_were_not_there(load: Load) -> None:
    bare = GENERATION.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    conversation = chat("Hi", "Hello.", "And you?", "Fine.\n\nGood answer!")
    texts, labels = [], []
    for template in (GENERATION, bare):
        tokenizer = load(template)
        messages = conversation.messages
        texts.append(tokenizer.render_text(messages, generation_prompt=False))
        texts.append(tokenizer.render_text(messages[:1], generation_prompt=True))
        labels.append(encode([conversation], tokenizer, max_length=200)[0].labels)
    assert texts[:2] == texts[2:]
    assert "Fine.\n\nGood answer!<|im_end|>\n" in texts[0]
    assert np.array_equal(labels[0], labels[1])
    assert (labels[0] != IGNORE).sum() > 4


def test_the_mask_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = write_tokenizer(tmp_path, GENERATION)
    conversation = chat("Hi", "Hello, it is 1974.", "And?", "A slow waltz.")
    ours = encode([conversation], load_tokenizer(folder), max_length=200)[0]
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [message.as_dict() for message in conversation.messages],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    mask = np.array(theirs["assistant_masks"], bool)
    ids = np.array(theirs["input_ids"])
    shifted = np.where(mask, ids, IGNORE)[1:]  # what follows the last label is not computed
    count = len(ours.labels)
    assert mask.sum() > 8
    assert np.array_equal(ours.input_ids, ids[:count])
    assert np.array_equal(ours.labels, shifted[:count])
    assert not mask[count + 1 :].any()


def test_json_is_written_as_transformers_writes_it(load: Load) -> None:
    shown = "{{ messages[0].content | tojson(sort_keys=true, separators=(',', ':')) }}"
    text = load(shown + CHATML).render_text(chat("<ü>").messages, generation_prompt=False)
    assert text.startswith('"<ü>"')
