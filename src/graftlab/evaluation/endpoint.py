"""A model served elsewhere as a speaker, over any OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from graftlab.data.system import with_system
from graftlab.errors import ConfigError, ModelError
from graftlab.evaluation.replies import Said
from graftlab.evaluation.speakers import Ask, Report, Speaker, digest
from graftlab.generation.sampling import ROW
from graftlab.recipes.rewriters.answer_cache import CachedAnswer
from graftlab.recipes.rewriters.endpoint import EMPTY, Refused

if TYPE_CHECKING:
    from graftlab.caches import RowCache
    from graftlab.generation.prompts import Prompt
    from graftlab.generation.sampling import Generation
    from graftlab.recipes.rewriters.endpoint import Endpoint

BACKOFF = 1.0
"""Seconds before the second try, doubled each time; Retry-After goes before it."""


class EndpointSpeaker(Speaker):
    """A model behind an endpoint; its requests run side by side."""

    def __init__(
        self,
        model: str,
        endpoint: Endpoint,
        *,
        url: str,
        generation: Generation,
        system: dict[str, str | None],
        batch: int,
        retries: int,
        cache: RowCache,
    ) -> None:
        """`url`: the endpoint's; `batch`: requests at the same time; `retries`: further tries of
        each.
        """
        self.name, self.cache = model, cache
        self.told = {"endpoint": url, "model": model}
        self.url, self.generation, self.system = url, generation, system
        self.batch, self.retries = batch, retries
        self.endpoint = endpoint
        self._stop = threading.Event()

    def key(self, prompt: Prompt, draw: int) -> str:
        return digest([self.url, self._payload(prompt, draw)])

    def answer(self, asks: Sequence[Ask], report: Report) -> None:
        self._stop.clear()
        with ThreadPoolExecutor(self.batch) as pool:
            try:
                for said in pool.map(self._answer, asks):
                    report(1, said.num_tokens)
            except BaseException:
                self._stop.set()  # what is under way is waited for, and kept
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def likelihoods(self, prompt: Prompt) -> tuple[float, ...]:
        raise ConfigError("an endpoint tells no likelihood of given options.")

    def _answer(self, ask: Ask) -> Said:
        payload, why = self._payload(ask.prompt, ask.draw), "interrupted"
        began = time.perf_counter()
        for attempt in range(self.retries + 1):
            if self._stop.is_set():
                break
            found = self.endpoint.ask(payload)
            if isinstance(found, Refused):
                self._stop.set()
                raise ModelError(f"{ask.prompt.conversation.where}: {found.why}")
            last = attempt == self.retries
            if not isinstance(found, CachedAnswer) and found.why == EMPTY and last:
                found = CachedAnswer("", "stop", (0, 0))
            if isinstance(found, CachedAnswer):
                seconds = round(time.perf_counter() - began, 6)
                said = Said(found.text, found.tokens[1], found.finish != "length", seconds)
                self.cache.put(ask.key, said.as_row())
                return said
            why = found.why
            if not last:
                self._stop.wait(BACKOFF * 2**attempt if found.after is None else found.after)
        self._stop.set()
        raise ModelError(f"{self.url} gives no answer to {ask.prompt.conversation.where}: {why}.")

    def _payload(self, prompt: Prompt, draw: int) -> dict[str, Any]:
        conversation, wanted = prompt.conversation, self.generation
        payload: dict[str, Any] = {
            "model": self.name,
            "messages": [
                _openai(message.as_dict())
                for message in with_system(conversation.messages, **self.system)
            ],
            "temperature": wanted.temperature,
            "max_tokens": wanted.max_new_tokens,
            "seed": wanted.seed + draw,
        }
        if wanted.top_p is not None:
            payload["top_p"] = wanted.top_p
        if conversation.tools:
            payload["tools"] = list(conversation.tools)
        form = conversation.messages[-1].response_format
        if wanted.schema == ROW and form is not None:
            payload["response_format"] = form
        return payload


def _openai(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn as endpoints take it: arguments as a text, and no key that only templates read."""
    turn = {k: v for k, v in turn.items() if k not in ("response_format", "reasoning_content")}
    for place, call in enumerate(turn.get("tool_calls", ())):
        inner = call["function"]
        text = json.dumps(inner["arguments"], ensure_ascii=False)
        given = {"id": f"call_{place}", **call, "function": {**inner, "arguments": text}}
        turn["tool_calls"][place] = given
    return turn
