"""Rows that compare two answers, or judge one: which they are, and the turns of each side.

{"prompt": str or turns, "chosen": ..., "rejected": ...}          answers: texts, turns or lists
{"messages" or "conversations": turns, "chosen", "rejected"}      the same behind a conversation
{"instruction", "input"?, "chosen", "rejected"}                   the same behind an instruction
{"chosen": turns, "rejected": turns}                              two whole conversations
{"messages": turns, "label": true}                                is the last answer a good one?
{"prompt", "completion", "label": false}                          the same (KTO)

The prompt of two conversations is what they begin with alike.
"""

from __future__ import annotations

from typing import Any

from graftlab.data.keys import is_blank
from graftlab.data.problems import RowProblem, kind_of
from graftlab.types import Message, num_shared

SIDES = ("chosen", "rejected")
LABELS = ("label", "kto_tag")


def compares(row: dict[str, Any]) -> bool:
    """Whether a row holds two answers, or one of them and a blank place for the other."""
    if any(not is_blank(row.get(key)) for key in SIDES):
        return True
    return all(key in row for key in SIDES) and "prompt" in row


def label_of(row: dict[str, Any]) -> tuple[str, bool] | None:
    """(key, whether the answer is a good one) of a row that is judged; None for any other."""
    there = [key for key in LABELS if not is_blank(row.get(key))]
    if not there:
        return None
    values = [row[key] for key in there]
    judged = [isinstance(value, int) and value in (0, 1) for value in values]
    if len(there) > 1 and values[0] != values[1]:
        raise RowProblem("`label` and `kto_tag` differ: keep one")
    return (there[0], bool(values[0])) if all(judged) else None


def answer_turns(key: str, value: Any) -> list[Any]:
    """The turns of an answer: a text is an assistant's turn. Raises RowProblem."""
    if is_blank(value) or (isinstance(value, str) and not value.strip()):
        raise RowProblem(f"the {key} answer is empty (`{key}`)")
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list):
        return value
    raise RowProblem(f"{key} must be text, a turn or an array of turns, this is {kind_of(value)}")


def prompt_turns(value: Any) -> list[Any]:
    """The turns of a prompt: a text is a question. Raises RowProblem."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list):
        return value
    raise RowProblem(f"prompt must be text or an array of turns, this is {kind_of(value)}")


def is_whole(turns: list[Any]) -> bool:
    """Whether turns are a conversation from its beginning, and no answer alone."""
    first = turns[0]
    role = first.get("role", first.get("from")) if isinstance(first, dict) else None
    return role in ("system", "user", "human")


def sides_of(row: dict[str, Any], prompt: list[Any] | None) -> tuple[list[Any], list[Any]]:
    """The turns of both whole conversations; `prompt` is None where the row has no key for it.

    Raises RowProblem for answers that are missing, and for two prompts.
    """
    chosen, rejected = (answer_turns(key, row.get(key)) for key in SIDES)
    whole = [is_whole(turns) for turns in (chosen, rejected)]
    if whole[0] != whole[1]:
        raise RowProblem("one of chosen and rejected is a whole conversation, the other an answer")
    if not whole[0]:
        if not prompt:
            raise RowProblem(
                "preference data without a prompt: give `prompt`, or both conversations whole"
            )
        return [*prompt, *chosen], [*prompt, *rejected]
    return chosen, rejected


def pair_problems(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> list[str]:
    """What keeps two conversations from being compared, in words."""
    shared = num_shared(chosen, rejected)
    if [_said(turn) for turn in chosen] == [_said(turn) for turn in rejected]:
        return ["the chosen and the rejected answer are the same"]
    for key, turns in zip(SIDES, (chosen, rejected), strict=True):
        if shared == len(turns):
            return [f"the {key} conversation ends where the other one goes on: it has no answer"]
        last = turns[-1]
        if last.role == "assistant" and not last.content.strip() and not last.tool_calls:
            return [f"the {key} answer is empty"]
    other = next(
        (turns[shared] for turns in (chosen, rejected) if turns[shared].role != "assistant"), None
    )
    if other is not None:
        return [
            "chosen and rejected differ in the prompt, and not in their answers alone: "
            f"turn {shared + 1} ({other.role})"
        ]
    answers = [turn for turns in (chosen, rejected) for turn in turns[shared:]]
    if any(turn.weight not in (0, 1) for turn in answers):
        return ["answers that are compared have no weights but 0 and 1"]
    return []


def _said(turn: Message) -> tuple[Any, ...]:
    return turn.role, turn.content.strip(), turn.tool_calls, (turn.reasoning or "").strip()
