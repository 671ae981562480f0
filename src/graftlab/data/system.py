"""The system turn as configured: one of the data's own, or a given one, behind an instruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graftlab.types import Message


def with_system(
    messages: tuple[Message, ...], *, system: str | None, instruction: str | None
) -> tuple[Message, ...]:
    """The conversation with `system` where it has no system turn, `instruction` in front of it.

    A system turn that begins with the instruction already is left as it is.
    """
    turn, others = Message("system", system or ""), messages
    if messages and messages[0].role == "system":
        turn, *rest = messages
        others = tuple(rest)
    if instruction and not turn.content.lstrip().startswith(instruction):
        parts = [part for part in (instruction, turn.content) if part]
        turn = replace(turn, content=" ".join(parts))
    return (turn, *others) if turn.content else others


def system_of(run: Mapping[str, Any]) -> dict[str, str | None]:
    """What a run's configuration gave `with_system`, by keyword."""
    data = run.get("data")
    data = data if isinstance(data, Mapping) else {}
    return {"system": data.get("system_prompt"), "instruction": data.get("default_instruction")}
