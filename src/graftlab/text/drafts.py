"""Conversations as texts: which documents they become, and where in each the assistant speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graftlab.text.long import FEW, long_turns
from graftlab.text.spans import MaskProblem, Span, Turns
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation


@dataclass(frozen=True, slots=True)
class TurnDraft:
    """A document as text. `spans` are the assistant turns in it, in characters."""

    conversation: Conversation
    text: str
    spans: tuple[Span, ...]
    rejected: TurnDraft | None = None  # the other branch of a pair

    @property
    def texts(self) -> list[str]:
        return [self.text] if self.rejected is None else [self.text, self.rejected.text]


class Drafter:
    """Drafts of one tokenizer; `train_turns` and `train_on` say what of an answer is trained."""

    def __init__(self, tokenizer: Tokenizer, *, train_turns: str, train_on: str) -> None:
        self._tokenizer, self._train_on = tokenizer, train_on
        self._only_last = train_turns == "last"
        self._turns = Turns(tokenizer, train_on)

    def drafts(self, conversation: Conversation, *, apart: bool = False) -> list[TurnDraft]:
        """The documents of a conversation; `apart` makes one of each assistant turn.

        Raises MaskProblem where the template gives no mask for it.
        """
        self._turns.check_shown(conversation)
        if conversation.rejected:
            return [self._pair(conversation)]
        answers = [i for i, m in enumerate(conversation.messages) if m.role == "assistant"]
        last = self._only_last or conversation.desirable is not None
        wanted = answers[-1:] if last else answers
        drafts = self._drafts(conversation, answers, wanted, apart=apart)
        if not drafts:
            raise MaskProblem(self._untrained(conversation, wanted))
        return drafts

    def _drafts(
        self,
        conversation: Conversation,
        answers: Sequence[int],
        wanted: Sequence[int],
        *,
        apart: bool,
    ) -> list[TurnDraft]:
        """Those that have something trained in them."""
        if not apart and (found := self._together(conversation, answers)) is not None:
            text, spans = found
            kept = [
                span if answer in wanted else span.left_out()
                for answer, span in zip(answers, spans, strict=True)
            ]
            drafts = [TurnDraft(conversation, text, tuple(kept))]
        else:
            turns = (self._turns.turn(conversation, answer) for answer in wanted)
            drafts = [TurnDraft(conversation, text, (span,)) for text, span in turns]
        return [draft for draft in drafts if any(span.trained for span in draft.spans)]

    def _untrained(self, conversation: Conversation, wanted: Sequence[int]) -> str:
        """Why nothing of a conversation is trained."""
        turns = [conversation.messages[answer] for answer in wanted]
        which = "the last answer" if len(wanted) == 1 else "every answer"
        why = f"no answer has reasoning (data.train_on={self._train_on})"
        if all(turn.weight == 0 for turn in turns):
            why = f"{which} has the weight 0"
        return f"nothing of the row is trained: {why}"

    def _pair(self, conversation: Conversation) -> TurnDraft:
        """The chosen side, with the other one in it; of each, the answers behind the prompt."""
        shared, sides = conversation.num_shared, []
        for key, messages in (
            ("chosen", conversation.messages),
            ("rejected", conversation.rejected),
        ):
            side = replace(conversation, messages=messages, rejected=())
            answers = [i for i, m in enumerate(messages) if m.role == "assistant" and i >= shared]
            wanted = answers[-1:] if self._only_last else answers
            try:
                if key == "rejected":
                    self._turns.check_shown(side)
                drafts = self._drafts(side, wanted, wanted, apart=len(wanted) == 1)
            except MaskProblem as problem:
                raise MaskProblem(f"{key}: {problem}") from problem
            if len(drafts) > 1:
                raise MaskProblem(
                    f"{key}: the chat template renders earlier turns otherwise once later ones "
                    "follow, so answers of several turns cannot be compared"
                )
            if not drafts:
                raise MaskProblem(f"{key}: {self._untrained(side, wanted)}")
            sides.append(drafts[0])
        if sides[0].text == sides[1].text:
            raise MaskProblem("the chat template writes the same for the chosen and the rejected")
        return replace(sides[0], rejected=sides[1])

    def _together(
        self, conversation: Conversation, answers: Sequence[int]
    ) -> tuple[str, list[Span]] | None:
        """The whole text and all spans in it; None where earlier turns are rendered otherwise."""
        plain = not any(m.tool_calls or m.reasoning is not None for m in conversation.messages)
        if len(answers) > FEW and plain:
            found = long_turns(conversation, answers, self._tokenizer, self._turns)
            if found is not None:
                return found
        full, last = self._turns.turn(conversation, answers[-1])
        spans = []
        for answer in answers[:-1]:
            text, span = self._turns.turn(conversation, answer)
            if not full.startswith(text[: span.end]):
                return None
            spans.append(span)
        return full, [*spans, last]
