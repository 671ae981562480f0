"""Where the answers of a long conversation stand, without rendering all of its beginnings.

Prefix difference (turns.py) renders the conversation twice per answer: n answers cost n**2 turns.
Nearly every template writes an exchange the same way wherever it stands, so a long conversation is
rendered once, and each exchange once more behind a short one:

    whole     question 1  answer 1 │ question 2  answer 2 │ question 3  answer 3
    probe           "Hi"  "Hi"     │ question 3  answer 3
                                   └─ the same text, or the spans are found the slow way

Three things must hold, or nothing is returned: the exchanges laid end to end are the whole text;
and at a half, a quarter, an eighth ... of the conversation, prefix difference finds the same span.
"""

from __future__ import annotations

from collections.abc import Sequence

from graftlab.errors import ModelError
from graftlab.text.spans import Span, Turns
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation, Message

FEW = 8
"""Answers up to which every beginning is rendered: what is exact costs little there."""

_Exchange = tuple[str, int, int]
"""(text of a question and its answer, where in it the answer starts, where it ends)."""


def long_turns(
    conversation: Conversation,
    answers: Sequence[int],
    tokenizer: Tokenizer,
    turns: Turns,
) -> tuple[str, list[Span]] | None:
    """The whole text and the span of each answer; None where only prefix difference can tell."""
    messages = conversation.messages
    first = answers[0]
    roles = [message.role for message in messages[first + 1 :]]
    if roles != ["user", "assistant"] * (len(answers) - 1):
        return None
    whole, _ = turns.turn(conversation, answers[-1])
    head, span = turns.turn(conversation, first)
    spans = [span]
    at = len(head)
    if not whole.startswith(head):
        return None
    probe = _Probe([Message(message.role, "Hi") for message in messages[: first + 1]], tokenizer)
    for answer in answers[1:]:
        found = probe.exchange(messages[answer - 1], messages[answer])
        if found is None or not whole.startswith(found[0], at):
            return None
        text, start, end = found
        spans.append(turns.span(whole, at + start, at + end, messages[answer]))
        at += len(text)
    if at != len(whole) or not _confirmed(conversation, answers, whole, spans, turns):
        return None
    return whole, spans


class _Probe:
    """Renders single exchanges behind a short conversation."""

    def __init__(self, lead: Sequence[Message], tokenizer: Tokenizer) -> None:
        self._lead, self._tokenizer = lead, tokenizer
        self._before: str | None = None

    def exchange(self, question: Message, answer: Message) -> _Exchange | None:
        """What the template writes for a question and its answer, and where in it this stands."""
        render, asked = self._tokenizer.render_text, [*self._lead, question]
        try:
            if self._before is None:
                self._before = render(self._lead, generation_prompt=False)
            prompt = render(asked, generation_prompt=True)
            text = render([*asked, answer], generation_prompt=False)
        except ModelError:
            return None
        if not prompt.startswith(self._before) or not text.startswith(prompt):
            return None
        end = text.find(self._tokenizer.stop, len(prompt))
        if end <= len(prompt):
            return None
        size = len(self._before)
        return text[size:], len(prompt) - size, end + len(self._tokenizer.stop) - size


def _confirmed(
    conversation: Conversation,
    answers: Sequence[int],
    whole: str,
    spans: Sequence[Span],
    turns: Turns,
) -> bool:
    """Whether prefix difference agrees on the last span and at a half, a quarter, an eighth ..."""
    place = len(answers) - 1
    while place:
        text, span = turns.turn(conversation, answers[place])
        if span != spans[place] or not whole.startswith(text[: span.end]):
            return False
        place //= 2
    return True
