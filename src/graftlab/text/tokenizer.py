"""What every tokenizer can do; `text.load` finds the one in a folder."""

from __future__ import annotations

import datetime
import hashlib
import inspect
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from graftlab.errors import ModelError
from graftlab.text.template import DATE_FUNCTION, literal_markers, rendered, wants_text_arguments
from graftlab.types import Message

FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
"""One of these is in every folder that has a tokenizer."""

_QUESTION, _ANSWER = "graftlab asks", "graftlab answers"


class Tokenizer(ABC):
    """A vocabulary with its chat template: conversations to ids and back.

    `markers` are the strings that always become one token of their own, wherever they stand, and
    split the text around them (<|im_start|>, </s>, ...). The stop marker is the first of them that
    the template puts after an assistant's content; generation ends there and it is trained. It and
    every marker that the template writes around turns are `reserved`.
    """

    fingerprint: str  # of vocabulary, rules and template
    vocab_size: int
    template: str  # Jinja source
    reserved: frozenset[str]  # strings that message content may not hold
    markers: Mapping[str, int]
    bos: str | None = None  # the text of the token that begins a sequence, where there is one
    stop: str  # the marker that ends an assistant turn
    stop_ids: tuple[int, ...]  # ids generation stops at; the template's stop marker first
    notes: tuple[str, ...] = ()  # lines for the log
    date: str | None = None  # YYYY-MM-DD, told to a template that asks for it; None: today

    @property
    def asks_date(self) -> bool:
        """Whether what the template writes depends on the day."""
        return DATE_FUNCTION in self.template

    @property
    def rendering(self) -> str:
        """All that decides the ids of a conversation beside the code of this folder: the files, the
        code of the class, which may lie elsewhere, and the date where one is asked.
        """
        day = f" {self._day()}" if self.asks_date else ""
        return f"{self.fingerprint} {_code_of(type(self))}{day}"

    def strftime_now(self, form: str) -> str:
        """What templates call: midnight of the date, in a format of `strftime`."""
        return datetime.datetime.combine(self._day(), datetime.time()).strftime(form)

    def _day(self) -> datetime.date:
        return datetime.date.fromisoformat(self.date) if self.date else datetime.date.today()

    @abstractmethod
    def render_text(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool,
    ) -> str:
        """The conversation as one text. Raises ModelError when the template refuses it."""

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of rendered texts; markers become their tokens and nothing is added."""

    @abstractmethod
    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of `ids`."""

    @abstractmethod
    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One string to show per token."""

    @abstractmethod
    def token_bytes(self) -> list[bytes | None]:
        """Per id: the bytes it writes; None for markers, special tokens and ids without a text.

        Raises ModelError for a vocabulary whose tokens cannot be told apart as bytes.
        """

    def beyond(self, rows: int) -> dict[str, int]:
        """The tokens whose ids an embedding of so many rows does not hold."""
        ids = range(rows, self.vocab_size)
        return dict(zip(self.pieces(ids), ids, strict=True))

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `load_tokenizer(folder)` needs to give the same tokenizer back."""

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool,
    ) -> list[int]:
        """The conversation as ids, with or without the header that asks for the next answer."""
        text = self.render_text(messages, tools=tools, generation_prompt=generation_prompt)
        return self.encode_text([text])[0]

    def _settle_markers(
        self, special: Mapping[str, int], others: Mapping[str, int], eos: str | None
    ) -> None:
        """Set `markers`, `reserved`, `stop` and `stop_ids`; called once the template renders.

        `special` are the vocabulary's control tokens, `others` further tokens that are matched
        whole: those count as markers where the template writes them.
        Raises ModelError when the template has no stop marker or its mask cannot be derived.
        """
        written = {t: i for t, i in others.items() if t.strip() and t in self.template}
        self.markers = {**written, **special}
        self.reserved = frozenset(special) | literal_markers(self.template)
        self.stop = self._find_stop()
        self.reserved |= {self.stop} | self._framing()
        stop_ids = [self.markers[self.stop]]
        if eos is not None and eos in self.markers and self.markers[eos] not in stop_ids:
            stop_ids.append(self.markers[eos])
        self.stop_ids = tuple(stop_ids)

    def _find_stop(self) -> str:
        question = Message("user", _QUESTION)
        turn = self.render_text([question, Message("assistant", _ANSWER)], generation_prompt=False)
        prompt = self.render_text([question], generation_prompt=True)
        if not turn.startswith(prompt):
            raise ModelError(
                "no assistant mask can be derived from this chat template: asking for an answer "
                f"renders {prompt[-60:]!r}, which is not how the answer's turn then begins. "
                "Give a template where it is, with model.template=FILE (or model.template=chatml)."
            )
        after = turn[turn.rfind(_ANSWER) + len(_ANSWER) :]
        found = marker_pattern(self.markers).search(after)
        if _ANSWER not in turn or found is None:
            raise ModelError(
                "the chat template ends an assistant turn with "
                f"{after!r}, which holds no token of its own in this vocabulary: the model could "
                "not learn to stop. Use a template that writes {{ eos_token }} after the "
                "assistant's content (model.template=FILE), or model.template=chatml."
            )
        return found.group()

    def _framing(self) -> set[str]:
        """The markers that the template writes around turns, outside of what an answer may hold.

        An answer may write <think> or <tool_call>, which templates with such markers take from it.
        """
        question, answer = Message("user", _QUESTION), Message("assistant", _ANSWER)

        def blocks(marker: str) -> bool:
            """Whether it opens or ends a block that is no turn, as <think> does in a prompt."""
            bare = marker.replace("</", "<", 1)
            both = {bare, bare.replace("<", "</", 1)} <= self.markers.keys()
            return both and marker not in self.reserved

        try:
            prompt = self.render_text([question], generation_prompt=True)
            text = self.render_text([question, answer, question], generation_prompt=True)
        except ModelError:
            return set()  # a template of single questions, which has no turns to keep apart
        start = len(prompt) if text.startswith(prompt) else text.find(_ANSWER)
        end = text.find(self.stop, text.find(_ANSWER))
        around = text if start < 0 or end < 0 else f"{text[:start]}\n{text[end:]}"
        return {
            found for found in marker_pattern(self.markers).findall(around) if not blocks(found)
        }


class TemplateTokenizer(Tokenizer):
    """One whose text is that of a Jinja template."""

    def render_text(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool,
    ) -> str:
        calls = any(message.tool_calls for message in messages)
        return rendered(
            partial(self._apply, tools=tools, generation_prompt=generation_prompt),
            messages,
            text_arguments=calls and self._text_arguments,
        )

    @abstractmethod
    def _apply(
        self,
        turns: list[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]],
        generation_prompt: bool,
    ) -> Any:
        """What the template makes of turns in plain content; may raise anything."""

    @cached_property
    def _text_arguments(self) -> bool:
        return wants_text_arguments(partial(self._apply, tools=(), generation_prompt=False))


def marker_pattern(markers: Mapping[str, int]) -> re.Pattern[str]:
    """Matches any marker, longest first; matches nothing when there are none."""
    ordered = sorted(markers, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")


def fingerprint_of(*parts: object) -> str:
    """A short hash of JSON-able parts."""
    data = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def holds_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in `folder`."""
    return any((folder / name).is_file() for name in FILES)


@cache
def _code_of(cls: type) -> str:
    """Hash of the file in which a class of another folder is written; nothing for one of this."""
    source = inspect.getsourcefile(cls)
    if source is None or Path(source).parent == Path(__file__).parent:
        return ""
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
