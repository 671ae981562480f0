"""What a run makes of rows that its template refuses, and of a teacher's answers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graftlab.data.jsonl import JsonlData
from graftlab.errors import ConfigError, DataError
from graftlab.models.hf import HFModel
from graftlab.models.metadata import read_metadata
from graftlab.objectives.sft import SFT
from graftlab.planning.inputs import read_documents
from graftlab.text.load import load_tokenizer
from graftlab.training.answers import Answers
from graftlab.training.process_context import ProcessContext
from graftlab.training.setup import read_data, resolve_setup_like
from graftlab.types import Conversation, Message
from training_spec import small_spec

REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + "
    "'<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def rows(file: Path, name: str) -> str:
    system = {"role": "system", "content": "Be brief."}
    chats: list[Any] = []
    for number in range(4):
        asked = {"role": "user", "content": f"{name} {number}"}
        chats.append([asked, {"role": "assistant", "content": "Yes."}])
    chats[1].insert(0, system)
    file.write_text("".join(json.dumps(chat) + "\n" for chat in [*chats, {"text": "x"}]))
    return str(file)


def test_skipped_rows_of_both_kinds_are_listed_and_never_asked(
    qwen2_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    template = tmp_path / "refuses.jinja"
    template.write_text(REFUSES)
    spec = small_spec(tmp_path)
    spec.model = HFModel(path=str(qwen2_folder), template=str(template))
    train, valid = rows(tmp_path / "t.jsonl", "train"), rows(tmp_path / "v.jsonl", "valid")
    spec.data = JsonlData(train=train, valid=valid, on_invalid="skip")
    folder: Any = SimpleNamespace(path=tmp_path / "run")
    for _ in range(2):  # a run that goes on in its folder lists them once
        data = read_data(spec, folder, prompts=9, place=ProcessContext.resolve(spec))
    assert (len(data.train), len(data.valid or ())) == (3, 3)
    assert [one.line for one in data.prompts] == [1, 3, 4]
    text = (tmp_path / "run" / "rejects.jsonl").read_text()
    listed = [*map(json.loads, text.splitlines())]
    places = [(Path(one["source"]).name, one["line"]) for one in listed]
    assert places == [("t.jsonl", 5), ("v.jsonl", 5), ("t.jsonl", 2), ("v.jsonl", 2)]
    assert "System role not supported" in listed[2]["reason"]
    assert listed[2]["row"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "train: 1 row left out (data.on_invalid=skip)" in capsys.readouterr().out


def pairs(file: Path, *, long: int = 0) -> str:
    rows: list[Any] = [
        {"prompt": f"Question {n}", "chosen": f"Good {n}", "rejected": f"Bad {n}"} for n in range(4)
    ]
    rows[2]["chosen"] = "word " * long or rows[2]["chosen"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_pairs_are_for_objectives_that_take_them(qwen2_folder: Path, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    spec.model = HFModel(path=str(qwen2_folder))
    file = pairs(tmp_path / "pairs.jsonl")
    spec.data = JsonlData(train=file, valid=file)
    place = ProcessContext.resolve(spec)
    folder: Any = SimpleNamespace(path=tmp_path / "run")
    for read in (
        lambda: read_data(spec, folder, prompts=1, place=place),
        lambda: read_documents(spec, read_metadata(spec.model)),  # a plan says so as well
    ):
        with pytest.raises(DataError) as caught:
            read()
        said = str(caught.value)
        assert "objective=sft learns from answers alone, and 4 of 4 rows are others" in said
        assert "data.preference=chosen" in said
        assert caught.value.problems[0] == f"{file}:1: pairs of a chosen and a rejected answer"
    spec.data.preference = "chosen"
    data = read_data(spec, folder, prompts=1, place=place)
    assert data.train.segments is None
    assert [one.kind for one in data.prompts] == ["answers"]
    spec.data.preference = None
    spec.objective = Compares()
    data = read_data(spec, folder, prompts=9, place=place)
    assert data.train.segments is not None
    assert len(data.train.segments) == 3 * len(data.train)
    assert [one.kind for one in data.prompts] == ["pairs"] * 4
    first = SimpleNamespace(spec=spec, data=data)
    with pytest.raises(ConfigError, match="objective=sft learns from answers alone, and the data"):
        resolve_setup_like(first, replace(spec, objective=SFT()), folder)  # type: ignore[arg-type]


class Compares(SFT):
    """An objective that takes pairs."""

    takes = "pairs"


@pytest.mark.parametrize("over_limit", ["drop", "error"])
def test_an_answer_over_the_limit_is_told_with_its_place(
    qwen2_folder: Path, tmp_path: Path, capsys: Any, over_limit: str
) -> None:
    spec = small_spec(tmp_path)
    spec.model, spec.objective = HFModel(path=str(qwen2_folder)), Compares()
    file = pairs(tmp_path / "pairs.jsonl", long=300)
    spec.data = JsonlData(train=file, valid_fraction=0, over_limit=over_limit)
    folder: Any = SimpleNamespace(path=tmp_path / "run")
    told = ""
    try:
        data = read_data(spec, folder, prompts=1, place=ProcessContext.resolve(spec))
        assert len(data.train) == 3
    except DataError as error:
        told = str(error)
    assert bool(told) == (over_limit == "error")
    told += capsys.readouterr().out
    assert f"packing.max_length={spec.packing.max_length}" in told
    assert re.search(rf"{file}:3: \d+ tokens \(prompt \d+, chosen \d\d\d+, rejected \d+\)", told)


def test_weights_of_turns_reach_the_tokens(qwen2_folder: Path, tmp_path: Path) -> None:
    turns = [("user", "One?"), ("assistant", "One."), ("user", "Two?"), ("assistant", "Two.")]
    chat = [{"role": role, "content": text} for role, text in turns]
    file = tmp_path / "weighed.jsonl"
    file.write_text(json.dumps([*chat[:3], {**chat[3], "weight": 0.5}]) + "\n")
    spec = small_spec(tmp_path)
    spec.model = HFModel(path=str(qwen2_folder))
    spec.data = JsonlData(train=str(file), valid_fraction=0)
    folder: Any = SimpleNamespace(path=tmp_path / "run")
    tokens = read_data(spec, folder, prompts=1, place=ProcessContext.resolve(spec)).train
    assert tokens.weights is not None
    assert set(tokens.weights[tokens.labels >= 0]) == {0.5, 1.0}
    assert tokens.label_weights[0] < tokens.num_labels[0]


def test_kept_answers_hold_any_line_end_and_a_response_format(
    qwen2_folder: Path, tmp_path: Path
) -> None:
    spec = small_spec(tmp_path)
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    asked: Any = SimpleNamespace(key="k", samples_temperature=0.0, samples_tokens=4)
    answers = Answers(
        spec=spec,
        objective=asked,
        folder=tmp_path,
        tokenizer=load_tokenizer(qwen2_folder),
        place=ProcessContext.resolve(spec),
    )
    question = Message("user", "Hi\u2028there", schema)
    talks = [Conversation((question, Message("assistant", "x")), "a", n) for n in (1, 2)]
    replies = ["One\u2028two\x85three", "Two"]
    kept = tmp_path / f"train-{answers._key(talks)}.jsonl"
    turns = [[question.as_dict(), {"role": "assistant", "content": reply}] for reply in replies]
    lines = [json.dumps({"messages": one}, ensure_ascii=False) + "\n" for one in turns]
    kept.write_text("".join(lines), encoding="utf-8")
    made = answers.to(talks, "train")
    assert [one.messages[-1].content for one in made] == replies
    assert made[0].messages[0] == question
