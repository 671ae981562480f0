"""Replies on the terminal: streamed one after the other, or side by side when it is wide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.types import Conversation

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from graftlab.generation.decode import Reply
    from graftlab.generation.prompts import Prompt

COLUMN = 44
"""Narrowest column that text is still pleasant to read in."""
CONTROLS = dict.fromkeys(code for code in (*range(32), 127) if chr(code) not in "\n\t")
SHOWN = 700
"""Characters of a prompt that are shown; metadata prompts run to pages."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One prompt and what became of it."""

    prompt: Prompt
    """What was asked, framed if there is a frame."""
    replies: dict[str, Reply]
    """By who gave them: `base`, `adapter`."""


class Screen:
    """Shows answers as they come: `ask`, `hear` each reply, then `show` what is not seen yet."""

    def __init__(self, console: Console, *, stream: bool) -> None:
        """`stream` writes replies token by token, where the console is a terminal."""
        self.console = console
        self.live = stream and console.is_terminal

    def ask(self, conversation: Conversation, *, index: int, total: int) -> None:
        """The question, under a rule."""
        self.console.rule(f"{index} of {total}" if total > 1 else "prompt", style="dim")
        self._write(shorten(conversation.messages[-1].content) + "\n", style="dim")

    def hear(self, name: str, speak: Callable[..., Reply]) -> Reply:
        """The reply of `speak(on_text=...)`, streamed under `name` or silently."""
        if not self.live:
            return speak(on_text=None)
        self._write(f"\n{name}\n", style="bold")
        reply = speak(on_text=self._write)
        self._write(f"\n{caption(reply)}\n", style="dim")
        return reply

    def show(self, answer: Answer) -> None:
        """What is not on the screen yet: everything, or after streaming the reference."""
        reference = answer.prompt.reference
        if not self.live:
            self.console.print(side_by_side(answer, width=self.console.width))
        elif reference is not None:
            self._write("\nreference\n", style="bold")
            self._write(reference + "\n")

    def _write(self, text: str, *, style: str = "") -> None:
        # Text, not markup: a reply may hold [brackets]; unwrapped, because it comes in pieces.
        from rich.text import Text

        self.console.print(Text(printable(text), style=style), end="", soft_wrap=True)


def side_by_side(answer: Answer, *, width: int) -> RenderableType:
    """A table with one column a reply (and the reference), or one row each on a narrow screen."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = {name: (reply.text, caption(reply)) for name, reply in answer.replies.items()}
    if answer.prompt.reference is not None:
        cells["reference"] = (answer.prompt.reference, "")
    if width < COLUMN * len(cells):
        table = Table.grid(padding=(0, 2))
        for name, (text, foot) in cells.items():
            table.add_row(Text(name, style="bold"), Text(printable(text)))
            table.add_row("", Text(foot, style="dim"))
        return table
    table = Table(box=box.SIMPLE, expand=True, show_footer=True)
    for name, (_, foot) in cells.items():
        table.add_column(name, Text(foot, style="dim"), ratio=1, overflow="fold")
    table.add_row(*[Text(printable(text)) for text, _ in cells.values()])
    return table


def caption(reply: Reply) -> str:
    """'42 tokens, 31 tokens/s, stopped' in one line."""
    end = "stopped" if reply.stopped else "cut at the limit"
    return f"{reply.num_tokens} tokens, {reply.tokens_per_second:.0f} tokens/s, {end}"


def printable(text: str) -> str:
    """`text` without control characters: what a model says must not steer the terminal."""
    return text.translate(CONTROLS)


def shorten(text: str) -> str:
    """`text`, or its beginning and how much follows."""
    if len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN].rstrip()} … ({len(text) - SHOWN} more characters)"
