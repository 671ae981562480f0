"""Rows that compare or judge answers: every shape of them, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab.data.jsonl import JsonlData
from graftlab.data.problems import RowProblem
from graftlab.data.rejects import row_of
from graftlab.data.shapes import parse_row
from graftlab.data.takes import require_kind
from graftlab.errors import DataError
from graftlab.types import Conversation, Message

ASK = {"role": "user", "content": "Hi"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Hello!", "What?"))
HUMAN = {"from": "human", "value": "Hi"}
GPT = {"from": "gpt", "value": "Hello!"}
CHOSEN = (Message("user", "Hi"), Message("assistant", "Hello!"))
REJECTED = (Message("user", "Hi"), Message("assistant", "What?"))
AGAIN = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "Well."}]

PAIRS: list[Any] = [
    {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"},
    {"prompt": "Hi", "chosen": GOOD, "rejected": BAD},
    {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
    {"prompt": [ASK], "chosen": "Hello!", "rejected": [BAD]},
    {"messages": [ASK], "chosen": GOOD, "rejected": BAD},
    {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    {"prompt": "Hi", "prompt_id": "7", "chosen": [ASK, GOOD], "rejected": [ASK, BAD], "score": 3},
    {"prompt": "Hi", "messages": [ASK, GOOD], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    {"prompt": [ASK], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "What?"}},
    {"instruction": "Hi", "input": "", "chosen": "Hello!", "rejected": "What?"},
    {"messages": None, "prompt": "Hi", "chosen": "Hello!", "rejected": "What?", "label": None},
]


@pytest.mark.parametrize("row", PAIRS)
def test_a_pair_is_two_conversations_that_begin_alike(row: Any) -> None:
    parsed = parse_row(row)
    assert (parsed.messages, parsed.rejected) == (CHOSEN, REJECTED)
    assert parsed.desirable is None
    assert "chosen and rejected" in parsed.shape


JUDGED: list[Any] = [
    {"messages": [ASK, GOOD], "label": True},
    {"messages": [ASK, GOOD], "kto_tag": True},
    {"messages": [ASK, GOOD], "label": 1},
    {"conversations": [HUMAN, GPT], "label": True},
    {"prompt": "Hi", "completion": "Hello!", "label": True},
    {"prompt": [ASK], "completion": [GOOD], "label": True},
    {"instruction": "Hi", "output": "Hello!", "label": True},
]


@pytest.mark.parametrize("row", JUDGED)
def test_a_label_judges_the_last_answer(row: Any) -> None:
    parsed = parse_row(row)
    assert parsed.messages == CHOSEN
    assert (parsed.rejected, parsed.desirable) == ((), True)
    (key,) = {"label", "kto_tag"} & row.keys()
    assert parse_row({**row, key: not row[key]}).desirable is False


def test_turns_around_the_answers_belong_to_both_sides() -> None:
    """A system prompt, tools and earlier turns; and answers of several turns."""
    tools = [{"name": "look", "parameters": {}}]
    row = {
        "prompt": [ASK, GOOD, AGAIN[0]],
        "chosen": [AGAIN[1], ASK, GOOD],
        "rejected": [AGAIN[1], ASK, BAD],
        "system": "Be kind.",
        "tools": tools,
    }
    parsed = parse_row(row)
    assert [turn.role for turn in parsed.messages] == ["system", *["user", "assistant"] * 3]
    assert parsed.messages[:-1] == parsed.rejected[:-1]
    assert parsed.tools == tuple(tools)
    pair = Conversation(parsed.messages, rejected=parsed.rejected, tools=parsed.tools)
    assert pair.num_shared == 6
    asked = pair.without_last_answer()
    assert asked.messages == parsed.messages[:6]
    assert (asked.rejected, asked.tools, pair.expected) == ((), pair.tools, "Hello!")


BROKEN: list[tuple[Any, str]] = [
    ({"prompt": "Hi", "chosen": "Hello!", "rejected": "Hello!"}, "answer are the same"),
    ({"prompt": "Hi", "chosen": "Hello!", "rejected": " Hello!\n"}, "answer are the same"),
    ({"prompt": "Hi", "chosen": "Hello!", "rejected": " "}, "the rejected answer is empty"),
    ({"prompt": "Hi", "chosen": None, "rejected": "What?"}, "the chosen answer is empty"),
    ({"prompt": "Hi", "chosen": "", "rejected": ""}, "the chosen answer is empty (`chosen`)"),
    ({"prompt": "Hi", "chosen": "Hello!"}, "the rejected answer is empty (`rejected`)"),
    ({"prompt": [ASK], "chosen": [{**GOOD, "content": ""}], "rejected": [BAD]}, "chosen answer is"),
    ({"chosen": "Hello!", "rejected": "What?"}, "without a prompt"),
    ({"prompt": "Hi", "chosen": 3, "rejected": "What?"}, "chosen must be text, a turn or an arr"),
    ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt must be text or an array of turns"),
    ({"messages": "Hi", "chosen": GOOD, "rejected": BAD}, "the turns must be an array"),
    (
        {"chosen": [ASK, GOOD], "rejected": [{**ASK, "content": "Ho"}, BAD]},
        "differ in the prompt, and not in their answers alone: turn 1 (user)",
    ),
    ({"chosen": [ASK, GOOD], "rejected": [ASK]}, "the rejected conversation ends where the other"),
    ({"chosen": [ASK, GOOD], "rejected": "What?"}, "one of chosen and rejected is a whole conv"),
    (
        {"messages": [AGAIN[0]], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        "do not begin with the turns of `messages`",
    ),
    (
        {"prompt": "Ho", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        "`prompt` says what no turn of the row does: correct or remove it, or pass over it with "
        "data.ignore_keys=[prompt]",
    ),
    (
        {"prompt": "Hi", "chosen": {**GOOD, "weight": 0.5}, "rejected": BAD},
        "no weights but 0 and 1",
    ),
    ({"prompt": "Hi", "chosen": {**GOOD, "audio": 1}, "rejected": BAD}, "`audio`"),
    ({"prompt": "Hi", "completion": "", "label": True}, "the completion answer is empty"),
    ({"prompt": "Hi", "completion": "Ho", "label": "yes"}, "`completion` without a `label`"),
]


@pytest.mark.parametrize(("row", "reason"), BROKEN)
def test_a_broken_pair_is_named_with_file_and_line(tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(RowProblem) as caught:
        parse_row(row)
    assert reason in str(caught.value)
    file = write(tmp_path, [PAIRS[0], row])
    with pytest.raises(DataError) as told:
        JsonlData(train=file).load()
    (problem,) = told.value.problems
    assert problem.startswith(f"{file}:2: ")
    assert reason in problem


def test_what_is_wrong_with_either_side_is_told(tmp_path: Path) -> None:
    bad = {"role": "assistant", "content": "<|end|>"}
    rows = [{"prompt": "Hi", "chosen": GOOD, "rejected": bad}, {"messages": [ASK], "label": True}]
    with pytest.raises(DataError) as caught:
        JsonlData(train=write(tmp_path, rows)).load(reserved=frozenset({"<|end|>"}))
    first, second = caught.value.problems
    assert "rejected: turn 2 (assistant) contains the reserved token <|end|>" in first
    assert "the last turn is user: it must be the assistant's" in second


def write(folder: Path, rows: list[Any]) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_no_prompt_has_answers_on_both_sides(tmp_path: Path) -> None:
    """Several pairs, and several judged answers, of one prompt stay together."""
    rows = [
        {"prompt": f"Question {n}", "chosen": f"Good {n} {m}", "rejected": f"Bad {n} {m}"}
        for n in range(30)
        for m in range(3)
    ]
    judged = [
        {"prompt": f"Thing {n}", "completion": f"Answer {m}", "label": m == 0}
        for n in range(30)
        for m in range(3)
    ]
    data = JsonlData(train=write(tmp_path, rows + judged), valid_fraction=0.3).load()
    asked = [{c.without_last_answer().messages for c in side} for side in (data.train, data.valid)]
    assert not asked[0] & asked[1]
    assert {c.kind for c in data.valid} == {"pairs", "labels"}
    assert len(data.valid) % 3 == 0


def test_the_chosen_answers_may_be_trained_as_any_others(tmp_path: Path) -> None:
    judged = {"messages": [ASK, BAD], "label": False}
    file = write(tmp_path, [PAIRS[0], {"messages": [ASK, GOOD], "label": True}, judged])
    plain = JsonlData(train=file, valid_fraction=0)
    assert [c.kind for c in plain.load().train] == ["pairs", "labels", "labels"]
    data = JsonlData(train=file, valid_fraction=0, preference="chosen").load()
    assert [(c.kind, c.messages) for c in data.train] == [("answers", CHOSEN)] * 2
    assert "data.train: 1 undesirable left out (data.preference=chosen)" in data.notes


@pytest.mark.parametrize(
    "rejected",
    [
        [ASK, GOOD],
        [ASK],
        [{**ASK, "content": "Ho"}, BAD],
        [ASK, {**BAD, "content": "<|end|>"}],
    ],
)
def test_of_chosen_answers_the_others_do_not_matter(tmp_path: Path, rejected: list[Any]) -> None:
    """Rows that cannot be compared, which fall on the side of the rows that share their prompt."""
    odd = {"chosen": [ASK, GOOD], "rejected": rejected}
    file = write(tmp_path, [odd, PAIRS[0], {**PAIRS[0], "prompt": "Another?"}])
    reserved = frozenset({"<|end|>"})
    with pytest.raises(DataError, match=r"rows\.jsonl:1: "):
        JsonlData(train=file).load(reserved=reserved)
    data = JsonlData(train=file, valid_fraction=0.5, preference="chosen").load(reserved=reserved)
    sides = [[c.messages for c in side] for side in (data.train, data.valid)]
    assert sorted(map(len, sides)) == [1, 2]
    assert [CHOSEN, CHOSEN] in sides
    assert {c.kind for c in (*data.train, *data.valid)} == {"answers"}


def test_rows_of_one_reason_are_one_line(tmp_path: Path) -> None:
    same = {"prompt": "Hi", "chosen": "Ho", "rejected": "Ho"}
    file = write(tmp_path, [same] * 40 + [{"prompt": "Hi", "chosen": "Ho", "rejected": ""}])
    with pytest.raises(DataError) as caught:
        JsonlData(train=file).load()
    first, *lines = str(caught.value).splitlines()
    assert "data.on_invalid=skip leaves them out" in first
    assert lines == [
        f"  {file}:1: the chosen and the rejected answer are the same (40 rows: also {file}:2, "
        f"{file}:3, {file}:4 and 36 more)",
        f"  {file}:41: the rejected answer is empty (`rejected`)",
    ]
    assert len(caught.value.problems) == 41


def test_a_system_prompt_is_put_before_both_sides(tmp_path: Path) -> None:
    data = JsonlData(train=write(tmp_path, PAIRS[:1]), valid_fraction=0, system_prompt="S").load()
    (pair,) = data.train
    assert pair.messages[0] == pair.rejected[0] == Message("system", "S")


@pytest.mark.parametrize("row", [*PAIRS, *JUDGED])
def test_a_row_that_is_put_aside_reads_as_it_was(row: Any) -> None:
    parsed = parse_row(row)
    given = Conversation(
        parsed.messages, rejected=parsed.rejected, desirable=parsed.desirable, tools=parsed.tools
    )
    again = parse_row(json.loads(json.dumps(row_of(given))))
    assert (again.messages, again.rejected, again.desirable) == (
        parsed.messages,
        parsed.rejected,
        parsed.desirable,
    )


def test_an_objective_takes_one_kind_and_names_every_other_row() -> None:
    answer = Conversation(CHOSEN, "a.jsonl", 1)
    pair = Conversation(CHOSEN, "a.jsonl", 2, rejected=REJECTED)
    label = Conversation(CHOSEN, "a.jsonl", 3, desirable=True)
    for rows, takes, told in [
        ([answer, pair], "answers", ["a.jsonl:2: pairs", "data.preference=chosen"]),
        ([answer, label], "answers", ["a.jsonl:3: answers with a label", "objective=kto"]),
        ([pair, answer], "pairs", ["a.jsonl:1: answers alone", "objective=sft"]),
        ([label, pair], "labels", ["a.jsonl:2: pairs", "objective=dpo"]),
        ([label, label], "labels", ["all 2 rows that are trained on have the label true, such as"]),
    ]:
        with pytest.raises(DataError) as caught:
            require_kind(rows, takes=takes, objective="x", both=True)
        assert all(text in str(caught.value) for text in ["objective=x learns from", *told])
    other = Conversation(REJECTED, "a.jsonl", 4, desirable=False)
    require_kind([label, other], takes="labels", objective="x", both=True)
    require_kind([label], takes="labels", objective="x")
    require_kind([pair], takes="pairs", objective="x", both=True)
