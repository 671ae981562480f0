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

A pair becomes one document with two branches, of which the answers behind the common prompt are
trained; of a labelled conversation, the last answer is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from graftlab.text.document import Document, joined
from graftlab.text.drafts import Drafter, TurnDraft
from graftlab.text.spans import MaskProblem
from graftlab.text.tokenizer import Tokenizer, marker_pattern
from graftlab.types import CHOSEN, REJECTED, Conversation


class TurnReader:
    """Drafts and documents of one tokenizer; remembers what repeats from row to row."""

    def __init__(
        self, tokenizer: Tokenizer, *, train_turns: str = "all", train_on: str = "both"
    ) -> None:
        self._tokenizer = tokenizer
        self._pattern = marker_pattern(tokenizer.markers)
        self._marker_ids = np.fromiter(tokenizer.markers.values(), np.int32)
        self._headers: dict[str, list[int]] = {}
        self._drafter = Drafter(tokenizer, train_turns=train_turns, train_on=train_on)

    def drafts(self, conversation: Conversation) -> list[TurnDraft]:
        """The documents of a conversation. Raises MaskProblem where the template gives no mask."""
        return self._drafter.drafts(conversation)

    def documents(self, drafts: Sequence[TurnDraft]) -> Iterator[list[Document] | MaskProblem]:
        """Encode drafts in one batch: each becomes one document, several, or a problem."""
        encoded = iter(
            self._tokenizer.encode_text([text for draft in drafts for text in draft.texts])
        )
        for draft in drafts:
            ids = [np.array(next(encoded), np.int32) for _ in draft.texts]
            try:
                yield self._documents(draft, *ids)
            except MaskProblem as problem:
                yield problem

    def _documents(
        self, draft: TurnDraft, ids: np.ndarray, other: np.ndarray | None = None
    ) -> list[Document]:
        if draft.rejected is not None and other is not None:
            sides = [self._branch(draft, ids), self._branch(draft.rejected, other)]
            return [joined(sides, (CHOSEN, REJECTED))]
        found = self._whole(draft, ids)
        if found is not None:
            documents = [found]
        elif len(draft.spans) == 1:
            documents = [self._apart(draft)]
        else:
            documents = [
                self._apart(part) for part in self._drafter.drafts(draft.conversation, apart=True)
            ]
        judged = draft.conversation.desirable
        return documents if judged is None else [_judged(one, judged) for one in documents]

    def _branch(self, draft: TurnDraft, ids: np.ndarray) -> Document:
        """One side of a pair."""
        if (found := self._whole(draft, ids)) is not None:
            return found
        if len(draft.spans) == 1:
            return self._apart(draft)
        raise MaskProblem(
            "tokens merge across the edges of turns, so answers of several turns cannot be compared"
        )

    def _whole(self, draft: TurnDraft, ids: np.ndarray) -> Document | None:
        """The draft with its spans found among `ids`; None where a token crosses an edge."""
        found = list(self._pattern.finditer(draft.text))
        starts = [match.start() for match in found]
        places = np.flatnonzero(np.isin(ids, self._marker_ids))
        if len(places) != len(starts):
            raise MaskProblem(
                f"the tokenizer gives {len(places)} marker tokens where the text has {len(starts)}"
            )

        def before(at: int) -> tuple[int, str]:
            """(place of the last marker in front of a character, the text from there to it)."""
            opener = bisect_left(starts, at) - 1
            text = draft.text[starts[opener] if opener >= 0 else 0 : at]
            return int(places[opener]) if opener >= 0 else 0, text

        spans, targets = [], []
        for span in draft.spans:
            first, text = before(span.start)
            header = self._header(text)
            if ids[first : first + len(header)].tolist() != header:
                return None
            closer = bisect_left(starts, span.end - len(self._tokenizer.stop))
            edges = {span.start: first + len(header), span.end: int(places[closer]) + 1}
            for at in {span.first, span.last} - edges.keys():
                place, text = before(at)
                edges[at] = place + self._tokens_in(text, ids[place:])
            spans.append((edges[span.start], edges[span.end]))
            targets.append((edges[span.first], edges[span.last]))
        self._check_stops(ids, spans)
        system = self._system_tokens(draft, [match.end() for match in found], places)
        return _document(ids, spans, targets, draft, system)

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

    def _tokens_in(self, text: str, ids: np.ndarray) -> int:
        """How many of `ids` write `text`, with which their own begins.

        A token that crosses its end counts to what follows. White space may be split otherwise
        where something follows it.
        """
        led = self._header(text)
        count = min(len(ids), len(led))
        unlike = np.flatnonzero(ids[:count] != np.array(led[:count], np.int32))
        if len(unlike) == 0:
            return count
        count = int(unlike[0])
        while count < len(ids):
            written = self._tokenizer.decode(ids[: count + 1].tolist(), skip_special=False)
            if not text.startswith(written):
                break
            count += 1
        return count

    def _apart(self, draft: TurnDraft) -> Document:
        """Prompt and answer encoded apart; a marker in front keeps the answer "inside" a text."""
        span, stop = draft.spans[0], self._tokenizer.stop
        prompt, answer = self._tokenizer.encode_text(
            [draft.text[: span.start], stop + draft.text[span.start : span.end]]
        )
        ids = np.array(prompt + answer[1:], np.int32)
        self._check_stops(ids, [(len(prompt), len(ids))])
        led = np.array(answer, np.int32)
        first, last = (
            len(prompt) - 1 + max(1, self._tokens_in(stop + draft.text[span.start : at], led))
            for at in (span.first, span.last)
        )
        places = np.flatnonzero(np.isin(ids, self._marker_ids))
        ends = [match.end() for match in self._pattern.finditer(draft.text[: span.end])]
        system = self._system_tokens(draft, ends, places) if len(ends) == len(places) else 0
        return _document(ids, [(len(prompt), len(ids))], [(first, last)], draft, system)

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


def _document(
    ids: np.ndarray,
    spans: Sequence[tuple[int, int]],
    targets: Sequence[tuple[int, int]],
    draft: TurnDraft,
    system: int,
) -> Document:
    """The document in which `targets` are trained, a part of the span beside each."""
    mask, weights = np.zeros(len(ids), bool), np.ones(len(ids), np.float32)
    for span, (first, last) in zip(draft.spans, targets, strict=True):
        if span.trained:
            mask[first:last] = True
            weights[first:last] = span.weight
    if not mask.any():
        raise MaskProblem("nothing of the row is trained: no token is left of it")
    assistant = sum(end - start for start, end in spans)
    parts = (system, len(ids) - system - assistant, assistant)
    plain = (weights[mask] == 1).all()
    return Document(ids, mask, parts, weights=None if plain else weights)


def _judged(document: Document, desirable: bool) -> Document:
    """The document as one branch of its own kind."""
    kind = CHOSEN if desirable else REJECTED
    return replace(document, segments=np.array([[len(document.ids), -1, kind]], np.int32))
