"""The system turn as configured: one of the data's own, or a given one, behind an instruction."""

from __future__ import annotations

from dataclasses import replace

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
