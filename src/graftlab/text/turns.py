"""Which tokens of a rendered conversation the assistant wrote: the mask, by prefix difference.

For the assistant's turn i, two renderings are compared: the conversation before it with the
generation prompt, and the conversation up to and including it:

    asked     <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n
    answered  <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello.<|im_end|>\\n
    trained                                                           └─────────────┘

The trained span ends with the stop marker; what a template puts behind it (here a newline) is not
the assistant's. It works for any template whose turn begins as its generation prompt does.

Ids are those of the full rendering, and the ids of the prompt are a true prefix of them, as they
are at generation. A vocabulary may merge across the edge (a prompt that ends and an answer that
begins with a newline): then the two sides are encoded apart, since that is what generation sees.

One document holds all turns of a conversation. Where the template renders earlier turns otherwise
once later ones follow (stripping earlier thinking, moving tools), or where ids merge across an
edge, each assistant turn becomes a document of its own, with what the model would have seen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftlab.errors import ModelError
from graftlab.text.document import Document
from graftlab.text.long import FEW, long_turns
from graftlab.text.tokenizer import Tokenizer, marker_pattern
from graftlab.types import Conversation, Message


class MaskProblem(Exception):
    """Why a conversation yields no trained tokens; caught in `encode.py`, shown with its place."""


@dataclass(frozen=True, slots=True)
class TurnDraft:
    """A document as text. `spans` are the assistant turns, as (start, end) in characters."""

    conversation: Conversation
    text: str
    spans: tuple[tuple[int, int], ...]
    trained: int  # how many of the last spans are trained


class TurnReader:
    """Drafts and documents of one tokenizer; remembers what repeats from row to row."""

    def __init__(self, tokenizer: Tokenizer, *, train_turns: str = "all") -> None:
        self._tokenizer = tokenizer
        self._only_last = train_turns == "last"
        self._pattern = marker_pattern(tokenizer.markers)
        self._marker_ids = np.fromiter(tokenizer.markers.values(), np.int32)
        self._headers: dict[str, list[int]] = {}
        self._shows: dict[str, bool] = {}

    def drafts(self, conversation: Conversation, *, apart: bool = False) -> list[TurnDraft]:
        """The documents of a conversation; `apart` makes one of each assistant turn.

        Raises MaskProblem where the template gives no mask for it.
        """
        self._check_shown(conversation)
        answers = [i for i, m in enumerate(conversation.messages) if m.role == "assistant"]
        if not apart and (found := self._together(conversation, answers)) is not None:
            full, spans = found
            trained = 1 if self._only_last else len(spans)
            return [TurnDraft(conversation, full, tuple(spans), trained)]
        wanted = answers[-1:] if self._only_last else answers
        turns = (self._turn(conversation, answer) for answer in wanted)
        return [TurnDraft(conversation, text, ((start, end),), 1) for text, start, end in turns]

    def _together(
        self, conversation: Conversation, answers: Sequence[int]
    ) -> tuple[str, list[tuple[int, int]]] | None:
        """The whole text and all spans in it; None where earlier turns are rendered otherwise."""
        if len(answers) > FEW:
            found = long_turns(conversation, answers, self._tokenizer, self._turn)
            if found is not None:
                return found
        full, *last = self._turn(conversation, answers[-1])
        spans = []
        for answer in answers[:-1]:
            text, start, end = self._turn(conversation, answer)
            if not full.startswith(text[:end]):
                return None
            spans.append((start, end))
        return full, [*spans, (last[0], last[1])]

    def _check_shown(self, conversation: Conversation) -> None:
        """Refuse tools and response formats that the template would pass over in silence."""
        messages, tools = conversation.messages, conversation.tools
        wanted = next((turn.response_format for turn in messages if turn.response_format), None)
        if tools and not self._shown("tools", _first_question(messages), tools=tools):
            raise MaskProblem(
                "the row has tools, which the chat template does not show: use a template that "
                "does (model.template=FILE), or remove the `tools` key"
            )
        if wanted and not self._shown("response_format", [Message("user", "Hi", wanted)]):
            raise MaskProblem(
                "the row has a response_format, which the chat template does not show: write the "
                "schema into the question, or remove the `response_format` key"
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

    def _turn(self, conversation: Conversation, answer: int) -> tuple[str, int, int]:
        """(text up to this answer, where the answer starts, where it ends)."""
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
        stop = self._tokenizer.stop
        if stop in messages[answer].content:
            raise MaskProblem(
                f"turn {answer + 1}: the answer contains {stop}, which ends a turn: the model "
                "would learn to stop there"
            )
        end = text.find(stop, len(prompt))
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
        return text, len(prompt), end + len(stop)

    def documents(self, drafts: Sequence[TurnDraft]) -> Iterator[list[Document] | MaskProblem]:
        """Encode drafts in one batch: each becomes one document, several, or a problem."""
        encoded = self._tokenizer.encode_text([draft.text for draft in drafts])
        for draft, ids in zip(drafts, encoded, strict=True):
            try:
                yield self._documents(draft, np.array(ids, np.int32))
            except MaskProblem as problem:
                yield problem

    def _documents(self, draft: TurnDraft, ids: np.ndarray) -> list[Document]:
        if (document := self._whole(draft, ids)) is not None:
            return [document]
        single = len(draft.spans) == 1
        apart = [draft] if single else self.drafts(draft.conversation, apart=True)
        return [self._joined(part) for part in apart]

    def _whole(self, draft: TurnDraft, ids: np.ndarray) -> Document | None:
        """The draft with its spans found among `ids`; None where a token crosses an edge."""
        found = list(self._pattern.finditer(draft.text))
        starts = [match.start() for match in found]
        places = np.flatnonzero(np.isin(ids, self._marker_ids))
        if len(places) != len(starts):
            raise MaskProblem(
                f"the tokenizer gives {len(places)} marker tokens where the text has {len(starts)}"
            )
        spans = []
        for start, end in draft.spans:
            opener = bisect_left(starts, start) - 1
            header = self._header(draft.text[starts[opener] if opener >= 0 else 0 : start])
            first = int(places[opener]) if opener >= 0 else 0
            if ids[first : first + len(header)].tolist() != header:
                return None
            closer = bisect_left(starts, end - len(self._tokenizer.stop))
            spans.append((first + len(header), int(places[closer]) + 1))
        self._check_stops(ids, spans)
        system = self._system_tokens(draft, [match.end() for match in found], places)
        return _document(ids, spans, draft.trained, system)

    def _check_stops(self, ids: np.ndarray, spans: Sequence[tuple[int, int]]) -> None:
        """Refuse answers in which a text becomes the stop token, whatever it is written like."""
        stop = self._tokenizer.stop_ids[0]
        if any((ids[start : end - 1] == stop).any() for start, end in spans):
            raise MaskProblem(
                f"an answer holds a text that the tokenizer takes for {self._tokenizer.stop}: the "
                "model would learn to stop there"
            )

    def _header(self, text: str) -> list[int]:
        """Ids of the text from the last marker before an answer; the same few for most rows."""
        if (ids := self._headers.get(text)) is None:
            ids = self._tokenizer.encode_text([text])[0]
            if len(text) < 200:
                self._headers[text] = ids
        return ids

    def _joined(self, draft: TurnDraft) -> Document:
        """Prompt and answer encoded apart; a marker in front keeps the answer "inside" a text."""
        (start, end), stop = draft.spans[0], self._tokenizer.stop
        prompt, answer = self._tokenizer.encode_text(
            [draft.text[:start], stop + draft.text[start:end]]
        )
        ids = np.array(prompt + answer[1:], np.int32)
        self._check_stops(ids, [(len(prompt), len(ids))])
        places = np.flatnonzero(np.isin(ids, self._marker_ids))
        ends = [match.end() for match in self._pattern.finditer(draft.text[:end])]
        system = self._system_tokens(draft, ends, places) if len(ends) == len(places) else 0
        return _document(ids, [(len(prompt), len(ids))], 1, system)

    def _system_tokens(self, draft: TurnDraft, ends: Sequence[int], places: np.ndarray) -> int:
        """Tokens up to the marker that closes the system turn, or of its text where none does."""
        system, question = draft.conversation.messages[:2]
        if system.role != "system":
            return 0
        at = draft.text.find(system.content.strip())
        closed = at + len(system.content.strip())
        asked = draft.text.find(question.content.strip(), closed)
        closer = bisect_left(ends, closed + 1)
        if at >= 0 and closer < len(ends) and ends[closer] <= asked:
            return int(places[closer]) + 1
        return len(self._header(system.content))


def _first_question(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation up to its first user turn."""
    return messages[: 2 if messages[0].role == "system" else 1]


def _document(
    ids: np.ndarray, spans: Sequence[tuple[int, int]], trained: int, system: int
) -> Document:
    mask = np.zeros(len(ids), bool)
    for start, end in spans[-trained:]:
        mask[start:end] = True
    assistant = sum(end - start for start, end in spans)
    return Document(ids, mask, (system, len(ids) - system - assistant, assistant))
