"""What is asked: conversations up to an answer, and the answer to compare with.

Rows are those of training data (`data/shapes.py`), whose last answer is left out, or

{"prompt": str or turns, "reference"?: ..., "options"?: [str, ...]}     a question of an evaluation

A reference is text or a number; anything else is taken as the JSON that it is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftlab.data.check import problems_in, reserved_pattern
from graftlab.data.files import locate, read_rows
from graftlab.data.preferences import compares, prompt_turns
from graftlab.data.problems import RowProblem, kind_of
from graftlab.data.shapes import parse_row, turns_key
from graftlab.data.system import with_system as behind
from graftlab.errors import ConfigError, DataError, Problem, counted
from graftlab.types import Conversation, Message, place_of


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question."""

    conversation: Conversation
    """Ends with a user turn, or with what a tool gave back."""
    expected: str | None = None
    """The answer in the file, when it has one; calls of tools are lines of JSON."""
    options: tuple[str, ...] = ()
    """Answers to choose among, where the row has some."""


def read_prompts(
    files: str,
    *,
    reserved: frozenset[str] = frozenset(),
    limit: int | None = None,
    ignore: Collection[str] = (),
) -> list[Prompt]:
    """Questions from files in the shapes of training data; a last assistant turn is left out.

    Rows may lack the answer altogether; keys in `ignore` are passed over. Raises ConfigError for a
    missing file and DataError listing every row that cannot be asked (at most the first `limit`
    questions are read).
    """
    prompts: list[Prompt] = []
    problems: list[Problem] = []
    for found in _rows(locate("prompts", files), reserved, ignore):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        prompts.append(found)
        if limit is not None and len(prompts) == limit:
            break
    if problems:
        rows = counted(len(problems), "row")
        raise DataError(f"prompts={files}: {rows} cannot be asked:", problems)
    return prompts


def text_prompt(
    text: str, *, system: str | None = None, reserved: frozenset[str] = frozenset()
) -> Prompt:
    """One user turn, with a system turn if given. Raises ConfigError when it cannot be asked."""
    messages = (*([Message("system", system)] if system else []), Message("user", text))
    if problems := problems_in(messages, reserved=reserved_pattern(reserved), last="user"):
        raise ConfigError("prompt: " + "; ".join(problems))
    return Prompt(Conversation(messages, "prompt", 1))


def with_system(
    prompt: Prompt, *, system: str | None = None, instruction: str | None = None
) -> Prompt:
    """The prompt as training data would have been read: `data.system_prompt` where a conversation
    has no system turn, `data.default_instruction` in front of it."""
    conversation = prompt.conversation
    messages = behind(conversation.messages, system=system, instruction=instruction)
    return replace(prompt, conversation=replace(conversation, messages=messages))


def _rows(
    paths: list[Path], reserved: frozenset[str], ignore: Collection[str]
) -> Iterator[Prompt | Problem]:
    """Each row as a prompt, or why it is none."""
    pattern = reserved_pattern(reserved)
    for path in paths:
        for row in read_rows(path):
            where = place_of(str(path), row.line, row.index)
            if row.problem is not None:
                yield Problem(where, row.problem)
                continue
            try:
                value, options = _with_options(row.value)
                parsed = parse_row(_answerable(value), ignore=ignore)
            except RowProblem as problem:
                yield Problem(where, str(problem))
                continue
            whole = Conversation(
                parsed.messages,
                str(path),
                row.line,
                parsed.tools,
                row.index,
                parsed.rejected,
                parsed.desirable,
            )
            asked = whole.without_last_answer()
            problems = problems_in(
                asked.messages, reserved=pattern, last="user", tools=asked.tools, first=parsed.first
            )
            if problems:
                yield Problem(where, "; ".join(problems))
            elif options and whole.expected not in (None, *options):
                yield Problem(where, "the answer is none of the `options`")
            else:
                yield Prompt(asked, whole.expected, options)


def _answerable(row: Any) -> Any:
    """The row in a shape of training data; it may come without its answer."""
    if not isinstance(row, dict) or compares(row):
        return row
    if "instruction" in row:
        return {"output": "", **row}
    if "prompt" in row and "completion" not in row and turns_key(row) is None:
        others = {key: value for key, value in row.items() if key not in ("prompt", "reference")}
        return {"messages": [*prompt_turns(row["prompt"]), *_reference(row)], **others}
    return row


def _reference(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The turn that a reply is compared with, if there is one."""
    given = row.get("reference")
    if given is None or given == "":
        return
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    yield {"role": "assistant", "content": text}


def _with_options(row: Any) -> tuple[Any, tuple[str, ...]]:
    """The row without its options, and those. Raises RowProblem."""
    if not isinstance(row, dict) or row.get("options") is None:
        return row, ()
    given = row["options"]
    if not isinstance(given, list) or not all(isinstance(text, str) and text for text in given):
        seen = "a list with other things in it" if isinstance(given, list) else kind_of(given)
        raise RowProblem(f"`options` must be a list of texts, this is {seen}")
    if len(set(given)) < max(2, len(given)):
        raise RowProblem("`options` must be at least two texts, each another one")
    return {key: value for key, value in row.items() if key != "options"}, tuple(given)
