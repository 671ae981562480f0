"""What is asked: conversations up to an answer, and the answer to compare with."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftlab.data.check import problems_in, reserved_pattern
from graftlab.data.files import locate, read_rows
from graftlab.data.problems import RowProblem
from graftlab.data.shapes import parse_row
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
                parsed = parse_row(_answerable(row.value), ignore=ignore)
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
            else:
                yield Prompt(asked, whole.expected)


def _answerable(row: Any) -> Any:
    """A row may come without its answer: an Alpaca row, or a prompt alone."""
    if isinstance(row, dict) and "instruction" in row and "chosen" not in row:
        return {"output": "", **row}
    return row
