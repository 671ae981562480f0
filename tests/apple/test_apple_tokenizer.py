"""AFM v6: the same ids and labels as tamm's preprocessor, and what is refused."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from afm_chats import by_tamm, conversation, write_mini_tokenizer
from graftlab.apple.tokenizer import INSTRUCTIONS, AFMTokenizer, instruction_of
from graftlab.data.jsonl import JsonlData
from graftlab.errors import ConfigError, DataError, ModelError
from graftlab.text.encode import encode
from graftlab.text.load import load_tokenizer
from graftlab.text.spm import SentencePieceTokenizer
from graftlab.types import IGNORE, Conversation, Message
from text_tokenizers import write_sentencepiece

DEFAULT = INSTRUCTIONS["en"]
HI = Message("user", "Hi")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini_tokenizer(tmp_path_factory.mktemp("afm"))


def system_text(tokenizer: AFMTokenizer, *messages: Message) -> str:
    """What stands between the first header and its end."""
    text = tokenizer.render_text(messages, generation_prompt=True)
    return text.split("<turn_end>")[0].removeprefix("</s><turn_start> system\n")


@pytest.mark.parametrize("locale", ["en", "pt_BR"])
def test_ids_and_labels_equal_those_of_tamm(model_file, tmp_path, locale):
    pytest.importorskip("tamm")
    tokenizer = AFMTokenizer(model_file, locale=locale)
    instruction = tokenizer.instruction
    draw = random.Random(locale)
    rows = [conversation(draw, line, instruction=instruction) for line in range(1, 301)]
    tokens = encode(rows, tokenizer, max_length=100_000, cache=tmp_path)
    assert len(tokens) == len(rows)
    seen: Counter[str] = Counter()
    for row, document in zip(rows, (tokens[i] for i in range(len(rows))), strict=True):
        ids, labels = by_tamm(row, model_file, instruction=instruction)
        length = len(document)
        assert document.input_ids.tolist() == ids[:length], row
        assert document.labels.tolist() == labels[:length], row
        # Ours ends with the last label: what tamm has behind it is the last token, unlabelled.
        assert (len(ids), labels[length:]) == (length + 1, [IGNORE]), row
        seen["tools"] += bool(row.tools)
        seen["formats"] += any(turn.response_format for turn in row.messages)
        seen["own system"] += row.messages[0].role == "system"
        seen["opened already"] += row.messages[0].content.startswith(instruction)
        seen["several turns"] += len(row.messages) > 3
        seen["one character"] += any(len(turn.content) == 1 for turn in row.messages)
        seen["not ASCII"] += any(not turn.content.isascii() for turn in row.messages)
        seen["odd space"] += any(turn.content != turn.content.strip() for turn in row.messages)
    assert len(seen) == 8
    assert min(seen.values()) > 20, seen


def test_prompts_equal_those_of_tamm(model_file):
    pytest.importorskip("tamm")
    tokenizer = AFMTokenizer(model_file)
    draw = random.Random(2)
    for line in range(150):
        row = conversation(draw, line, instruction=DEFAULT).without_last_answer()
        ids, labels = by_tamm(row, model_file, instruction=DEFAULT, answered=False)
        assert labels is None
        assert tokenizer.render(row.messages, tools=row.tools, generation_prompt=True) == ids


def test_the_instruction_opens_the_system_turn_once(model_file):
    tokenizer = AFMTokenizer(model_file)
    assert system_text(tokenizer, HI) == DEFAULT
    assert system_text(tokenizer, Message("system", "Be brief."), HI) == f"{DEFAULT} Be brief."
    already = Message("system", f"{DEFAULT} Be brief.")
    assert system_text(tokenizer, already, HI) == already.content
    bare = AFMTokenizer(model_file, instruction="")
    assert system_text(bare, Message("system", "Be brief."), HI) == "Be brief."
    assert bare.render_text([HI], generation_prompt=False) == (
        "</s><turn_start> user\nHi<turn_end>"
    )


def test_locales_choose_the_instruction(model_file):
    portuguese = AFMTokenizer(model_file, locale="pt-BR")
    assert system_text(portuguese, HI) == INSTRUCTIONS["pt_BR"]
    english = Message("system", f"{DEFAULT} Seja breve.")
    assert system_text(portuguese, english, HI) == english.content, "one instruction, not two"
    assert portuguese.fingerprint != AFMTokenizer(model_file).fingerprint
    assert instruction_of("pt") == instruction_of("PT_br") == INSTRUCTIONS["pt_BR"]
    assert instruction_of("en_GB") == DEFAULT
    assert len(set(INSTRUCTIONS.values())) == len(INSTRUCTIONS)
    with pytest.raises(ConfigError, match="pt_BRA is not one of .* Did you mean `pt_BR`"):
        instruction_of("pt_BRA")
    with pytest.raises(ConfigError, match="white space"):
        AFMTokenizer(model_file, instruction="Be brief. ")


def test_decode_gives_the_text_back(model_file):
    tokenizer = AFMTokenizer(model_file)
    draw = random.Random(3)
    for line in range(100):
        row = conversation(draw, line, instruction=DEFAULT)
        text = tokenizer.render_text(row.messages, tools=row.tools, generation_prompt=False)
        ids = tokenizer.encode_text([text])[0]
        # A "▁" of one's own is read as the space it stands for.
        assert tokenizer.decode(ids, skip_special=False) == text.replace("▁", " ")
        answer = row.messages[-1].content
        # What generation yields: the ids behind the header, up to the stop token.
        part = tokenizer.encode_text(["<turn_start> assistant\n" + answer + "<turn_end>"])[0]
        assert tokenizer.decode(part[3:]) == answer.replace("▁", " ")
        assert part[-1] == tokenizer.stop_ids[0]


@pytest.mark.parametrize("mark", ["<turn_end>", "<turn_start>", "<n>", "<executable_start>"])
def test_reserved_tokens_are_refused_with_file_and_line(model_file, tmp_path, mark):
    ask, answer = '{"role": "user", "content": "Hi"}', '{"role": "assistant", "content": "A"}'
    bad = f'{{"role": "assistant", "content": "so {mark} ends"}}'
    tool = f'{{"type": "function", "function": {{"name": "a", "description": "{mark}"}}}}'
    wanted = f'{{"type": "json_schema", "json_schema": {{"schema": {{"title": "{mark}"}}}}}}'
    rows = [
        f"[{ask}, {answer}]",
        f"[{ask}, {bad}]",
        f'{{"messages": [{ask}, {answer}], "tools": [{tool}]}}',
        f'{{"messages": [{ask}, {answer}], "response_format": {wanted}}}',
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(rows) + "\n")
    reserved = AFMTokenizer(model_file).reserved
    with pytest.raises(DataError) as caught:
        JsonlData(train=str(file)).load(reserved=reserved)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"{file}:{line}" for line in (2, 3, 4)
    ]
    assert all(mark in problem for problem in caught.value.problems)


def test_a_folder_with_such_a_vocabulary_is_recognised(model_file, tmp_path):
    found = load_tokenizer(model_file.parent)
    assert isinstance(found, AFMTokenizer)
    AFMTokenizer(model_file, locale="pt_BR").save(tmp_path / "run")
    again = load_tokenizer(tmp_path / "run")
    assert isinstance(again, AFMTokenizer)
    assert again.instruction == INSTRUCTIONS["pt_BR"]
    assert again.fingerprint == AFMTokenizer(model_file, locale="pt_BR").fingerprint
    other = load_tokenizer(model_file.parent, template="chatml")
    assert isinstance(other, SentencePieceTokenizer)
    (tmp_path / "run" / "afm_template.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        load_tokenizer(tmp_path / "run")


def test_other_vocabularies_are_refused(tmp_path, model_file):
    other = write_sentencepiece(tmp_path, markers=True) / "tokenizer.model"
    with pytest.raises(ModelError, match="has no <turn_start> and <turn_end> and <n>"):
        AFMTokenizer(other)
    from graftlab.text.spm import read_proto

    proto = read_proto(model_file)
    proto.normalizer_spec.add_dummy_prefix = False
    changed = tmp_path / "changed.model"
    changed.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="add_dummy_prefix"):
        AFMTokenizer(changed)


def test_tools_need_a_system_turn(model_file, tmp_path):
    bare = AFMTokenizer(model_file, instruction="")
    row = Conversation((HI, Message("assistant", "A")), "a.jsonl", 7, ({"name": "find"},))
    with pytest.raises(DataError, match="a.jsonl:7: tools are listed in the system turn"):
        encode([row], bare, max_length=1000, cache=tmp_path)
