"""Replies on the terminal: streamed one after the other, or side by side when it is wide."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.progress import Progress
from graftlab.types import Conversation

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from graftlab.generation.decode import Reply
    from graftlab.generation.prompts import Prompt

COLUMN = 44
"""Narrowest column that text is still pleasant to read in."""
CONTROLS = dict.fromkeys(code for code in (*range(32), 127) if chr(code) not in "\n\t")
PLAIN = "plain"
"""The voice that speaks without the draft, for the speed-up only."""
SHOWN = 700
"""Characters of a prompt that are shown; metadata prompts run to pages."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One prompt and what became of it."""

    prompt: Prompt
    """What was asked, framed if there is a frame."""
    replies: dict[str, Reply]
    """By who gave them: `base`, `adapter`; `plain` is the last one without its draft."""


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
        if not self.live or name == PLAIN:
            return speak(on_text=None)
        self._write(f"\n{name}\n", style="bold")
        reply = speak(on_text=self._write)
        self._write(f"\n{caption(reply)}\n", style="dim")
        return reply

    def show(self, answer: Answer) -> None:
        """What is not on the screen yet: everything, or after streaming the expected answer."""
        expected = answer.prompt.expected
        if not self.live:
            self.console.print(side_by_side(answer, width=self.console.width))
        elif expected is not None:
            self._write("\nexpected\n", style="bold")
            self._write(expected + "\n")

    @contextmanager
    def counting(self, total: int) -> Iterator[Callable[[Answer], None]]:
        """A function to call with every answer: moves a bar where no stream is shown.

        Where the replies go into a file, their progress goes to standard error.
        """
        start, tokens = time.perf_counter(), 0
        console = self.console if self.console.is_terminal else None
        shown = not self.live and total > 1
        with Progress("replies", total=total, console=console, shown=shown) as progress:

            def count(answer: Answer) -> None:
                nonlocal tokens
                tokens += sum(reply.num_tokens for reply in answer.replies.values())
                speed = tokens / (time.perf_counter() - start)
                progress.advance(note=f"{speed:.0f} tokens/s")

            yield count

    def _write(self, text: str, *, style: str = "") -> None:
        write(self.console, text, style=style)


def write(console: Console, text: str, *, style: str = "") -> None:
    """A piece of a text, as it is: [brackets] are no markup, and no line is wrapped by us."""
    from rich.text import Text

    console.print(Text(printable(text), style=style), end="", soft_wrap=True)


def side_by_side(answer: Answer, *, width: int) -> RenderableType:
    """A table of one column a reply (and the expected one), or one row each on a narrow screen."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    replies = dict(answer.replies)
    if PLAIN in replies and replies[PLAIN].text == list(replies.values())[-1].text:
        del replies[PLAIN]  # it says the same, as it should: only its speed is of interest
    cells = {name: (reply.text, caption(reply)) for name, reply in replies.items()}
    if answer.prompt.expected is not None:
        cells["expected"] = (answer.prompt.expected, "")
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
    line = f"{reply.num_tokens} tokens, {reply.tokens_per_second:.0f} tokens/s, {end}"
    if reply.valid is not None:
        line += ", follows the schema" if reply.valid else ", does not follow the schema"
    if reply.speculated is not None:
        line += f", {reply.num_tokens / reply.speculated.rounds:.1f} a round"
    return line


def speculation_line(answers: Sequence[Answer], name: str, *, greedy: bool) -> str:
    """What the draft was good for, over all replies of `name`; compared where there are plain ones.

    The speed-up is that of tokens per second, prompts included: drawn replies differ in length.
    """
    replies = [answer.replies[name] for answer in answers]
    told = [reply.speculated for reply in replies if reply.speculated is not None]
    tokens = sum(reply.num_tokens for reply in replies)
    proposed, rounds = sum(t.proposed for t in told), sum(t.rounds for t in told)
    accepted = sum(t.accepted for t in told) / max(proposed, 1)
    speed = tokens / sum(reply.seconds for reply in replies)
    line = (
        f"draft: {accepted:.0%} of {proposed} proposed tokens accepted, "
        f"{tokens / max(rounds, 1):.2f} tokens a round, {speed:.1f} tokens/s"
    )
    plain = [answer.replies[PLAIN] for answer in answers if PLAIN in answer.replies]
    if not plain:
        return line
    before = sum(reply.num_tokens for reply in plain) / sum(reply.seconds for reply in plain)
    line += f", {speed / before:.2f} times plain decoding ({before:.1f})"
    if greedy:
        same = sum(ours.text == its.text for ours, its in zip(replies, plain, strict=True))
        line += f"; {same} of {len(replies)} replies are the same"
    return line


def printable(text: str) -> str:
    """`text` without control characters: what a model says must not steer the terminal."""
    return text.translate(CONTROLS)


def shorten(text: str) -> str:
    """`text`, or its beginning and how much follows."""
    if len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN].rstrip()} … ({len(text) - SHOWN} more characters)"
