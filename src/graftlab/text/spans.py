"""Where an assistant's turn stands in a rendered text, what of it is trained, and how strongly.

    <|im_start|>assistant\\n<think>\\nhm\\n</think>\\n\\nHello.<|im_end|>\\n
                           └─ reasoning ──────────┘└─ answer ─────┘
                           start                                  end

An empty block of thinking that the template writes by itself is not the assistant's, and no part of
either. A turn that calls tools is an answer, calls and all; what came back is another turn's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from graftlab.errors import ModelError
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation, Message

_OPENED = re.compile(r"(?:<([\w:.-]{1,40})>|\[([A-Z_]{1,40})\])")
_OPENED_LAST = re.compile(rf"{_OPENED.pattern}\s*\Z")
_TAIL = 60
"""Characters of a prompt in which it may open a block of thinking."""
_CLOSER = re.compile(r"\s*(?:</[^<>\s]{1,40}>|\[/[^\[\]\s]{1,40}\]|<\|[^|<>\s]{1,40}\|>)?\s*")
_USE_OTHER = "use a template that does (model.template=FILE, or chatml)"


class MaskProblem(Exception):
    """Why a conversation yields no trained tokens; caught in `encode.py`, shown with its place."""


@dataclass(frozen=True, slots=True)
class Span:
    """An assistant's turn, in characters of a text; `first` to `last` of it are trained."""

    start: int
    """Where the prompt of generation ends."""
    end: int
    """Behind the marker that ends the turn."""
    first: int
    last: int
    weight: float = 1.0

    @property
    def trained(self) -> bool:
        return self.last > self.first and self.weight > 0

    def left_out(self) -> Span:
        """The same turn, of which nothing is trained."""
        return replace(self, last=self.first)


def thought(message: Message) -> str | None:
    """What an assistant thought, beside its content or in it; None where it did not."""
    if message.reasoning is not None:
        return message.reasoning
    before, closer, _ = message.content.partition("</think>")
    return before.rpartition("<think>")[2] if closer else None


def _thinks(message: Message) -> bool:
    return thought(message) is not None or "<think>" in message.content


def _answer_at(text: str, own: int, end: int, message: Message) -> int:
    """Where the answer begins, behind the reasoning; `own` where there is none."""
    reasoning = thought(message)
    if reasoning is None:
        return own
    if not reasoning.strip():
        return _behind_empty_block(text, own, end, "")
    at = text.find(reasoning.strip(), own, end)
    if at < 0:
        raise MaskProblem(
            "the chat template does not show the reasoning of an answer, so data.train_on cannot "
            f"tell them apart: {_USE_OTHER}, or data.train_on=both"
        )
    closer = _CLOSER.match(text, at + len(reasoning.strip()), end)
    assert closer is not None, "it matches nothing as well"
    return closer.end()


def _behind_empty_block(text: str, start: int, end: int, content: str) -> int:
    """Behind a block of thinking that holds nothing and is not the content's; else `start`.

    It is opened in the turn, or already in the prompt.
    """
    opened = _OPENED_LAST.search(text, max(0, start - _TAIL), start)
    opened = opened or _OPENED.match(text, _skip_space(text, start))
    if opened is None:
        return start
    closer = f"</{opened[1]}>" if opened[1] else f"[/{opened[2]}]"
    place = _skip_space(text, max(start, opened.end()))
    if not text.startswith(closer, place):
        return start
    if content.lstrip().startswith((opened[0].strip(), closer)):
        return start
    return min(end, _skip_space(text, place + len(closer)))


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


class Turns:
    """Renders single turns of one tokenizer, and refuses what its template would leave out."""

    def __init__(self, tokenizer: Tokenizer, train_on: str) -> None:
        self._tokenizer, self._train_on = tokenizer, train_on
        self._shows: dict[str, bool] = {}

    def turn(self, conversation: Conversation, answer: int) -> tuple[str, Span]:
        """(the text up to this answer, its place in it), by prefix difference.

        Raises MaskProblem where the template gives no mask, or leaves out a part of the turn.
        """
        messages, tools = conversation.messages, conversation.tools
        render = self._tokenizer.render_text
        try:
            prompt = render(messages[:answer], tools=tools, generation_prompt=True)
            text = render(messages[: answer + 1], tools=tools, generation_prompt=False)
        except ModelError as error:
            raise MaskProblem(str(error)) from error
        if not text.startswith(prompt):
            raise MaskProblem(
                f"turn {answer + 1}: the chat template renders the answer's turn otherwise than "
                f"its generation prompt announces ({prompt[-40:]!r}), so no mask can be derived"
            )
        stop, message = self._tokenizer.stop, messages[answer]
        end = text.find(stop, len(prompt))
        if message.tool_calls or message.reasoning is not None:
            self._check_turn(conversation, answer, text[len(prompt) : end])
        if any(stop in said for said in (message.content, message.text, message.reasoning or "")):
            raise MaskProblem(
                f"turn {answer + 1}: the answer contains {stop}, which ends a turn: the model "
                "would learn to stop there"
            )
        if end < 0:
            raise MaskProblem(
                f"turn {answer + 1}: the chat template does not end it with {stop}, "
                "so the model would not learn to stop"
            )
        if end == len(prompt):
            raise MaskProblem(
                f"turn {answer + 1}: the chat template leaves nothing of the answer, so the row "
                "has no trained token but the stop token"
            )
        return text, self.span(text, len(prompt), end + len(stop), message)

    def span(self, text: str, start: int, end: int, message: Message) -> Span:
        """The span of a turn that stands at `start` to `end` of a rendered text.

        Raises MaskProblem where reasoning and answer are to be told apart, and the template does
        not show the reasoning.
        """
        body = end - len(self._tokenizer.stop)
        own = start
        if not _thinks(message):
            own = _behind_empty_block(text, start, body, message.content)
        if self._train_on == "both":
            return Span(start, end, own, end, message.weight)
        answer = _answer_at(text, own, body, message)
        first, last = (answer, end) if self._train_on == "answers" else (own, answer)
        return Span(start, end, first, last, message.weight)

    def check_shown(self, conversation: Conversation) -> None:
        """Refuse what the template would pass over in silence: tools, results, formats."""
        messages, tools = conversation.messages, conversation.tools
        wanted = next((turn.response_format for turn in messages if turn.response_format), None)
        question = messages[: 2 if messages[0].role == "system" else 1]
        if tools and not self._shown("tools", question, tools=tools):
            raise MaskProblem(
                "the row has tools, which the chat template does not show: use a template that "
                "does (model.template=FILE, or chatml), or remove the `tools` key"
            )
        if wanted and not self._shown("response_format", [Message("user", "Hi", wanted)]):
            raise MaskProblem(
                "the row has a response_format, which the chat template does not show: write the "
                "schema into the question, or remove the `response_format` key"
            )
        result = next((i for i, turn in enumerate(messages) if turn.role == "tool"), None)
        if result is not None:
            shown = messages[: result + 1]
            other = [*messages[:result], replace(messages[result], content="graftlab")]
            if not self._differ("results", shown, other, tools):
                raise MaskProblem(
                    "the row has results of tools (turns of the role `tool`), which the chat "
                    f"template does not show: {_USE_OTHER}"
                )

    def _check_turn(self, conversation: Conversation, answer: int, written: str) -> None:
        """Refuse a turn whose calls, reasoning or text beside its calls are not written."""
        before, message = conversation.messages[:answer], conversation.messages[answer]
        count = len(message.tool_calls)
        if count:
            fewer = replace(message, tool_calls=message.tool_calls[:-1])
            shown = [*before, message]
            if not self._differ(f"{count} calls", shown, [*before, fewer], conversation.tools):
                lack = "tool calls" if count == 1 else f"more than {count - 1} of a turn's calls"
                raise MaskProblem(
                    f"turn {answer + 1} calls tools, and the chat template does not show {lack} "
                    f"(`tool_calls`): {_USE_OTHER}, or write the call into the content"
                )
            said = message.content.rpartition("</think>")[2].strip()
            if said not in written:
                raise MaskProblem(
                    f"turn {answer + 1}: the chat template leaves out the text beside tool calls: "
                    f"{_USE_OTHER}, or remove that text"
                )
        if message.reasoning is not None:
            silent = [*before, replace(message, reasoning=None)]
            shown = [*before, message]
            if not self._differ("reasoning", shown, silent, conversation.tools):
                raise MaskProblem(
                    f"turn {answer + 1} has reasoning of its own key, which the chat template does "
                    f"not show: {_USE_OTHER}, write it into the content, or pass over it with "
                    "data.ignore_keys=[reasoning_content]"
                )

    def _shown(self, key: str, question: Sequence[Message], **extra: Any) -> bool:
        """Whether the template's text depends on `key`; asked once."""
        if key not in self._shows:
            render = self._tokenizer.render_text
            plain = [Message(turn.role, turn.content) for turn in question]
            try:
                shown = render(question, generation_prompt=True, **extra)
            except ModelError:
                return True  # refused where it is rendered, with this row's own reason
            self._shows[key] = shown != render(plain, generation_prompt=True)
        return self._shows[key]

    def _differ(
        self,
        key: str,
        shown: Sequence[Message],
        other: Sequence[Message],
        tools: Sequence[dict[str, Any]],
    ) -> bool:
        """Whether two conversations are written otherwise; asked once for each `key`."""
        if key not in self._shows:
            render = self._tokenizer.render_text
            try:
                one, two = (
                    render(turns, tools=tools, generation_prompt=False) for turns in (shown, other)
                )
            except ModelError:
                return True  # refused where it is rendered, with this row's own reason
            self._shows[key] = one != two
        return self._shows[key]
