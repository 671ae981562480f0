"""`rewriter=http`: any OpenAI-compatible endpoint (Ollama, vLLM, a hosted model) rewrites.

Requests run side by side, answers come back in order. Each answer is on disk before it is used, so
a run that was killed goes on where it stopped and pays for nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.caches import default_cache
from graftlab.errors import ConfigError, require_range
from graftlab.recipes.rewriters.answer_cache import AnswerCache, CachedAnswer, SpendingLimit
from graftlab.recipes.rewriters.base import (
    Miss,
    PromptedRewriter,
    Rewrite,
    RewriterError,
    asked,
)
from graftlab.recipes.rewriters.endpoint import REWRITER, Again, Endpoint, Refused
from graftlab.recipes.rewriters.secret import OPENAI, check_address, key_for
from graftlab.registry import choice

GIVE_UP_AFTER = 8
"""So many texts in a row without an answer, and the endpoint is held to be down."""


@choice("http")
@dataclass(kw_only=True, slots=True)
class HttpRewriter(PromptedRewriter):
    """`rewriter=http rewriter.model=NAME`; without a url, Ollama on this machine is asked."""

    url: str = "http://127.0.0.1:11434/v1"
    """The endpoint, up to and without /chat/completions."""
    model: str | None = None
    """The model's name there; required."""
    key_env: str | None = OPENAI
    """The environment variable that holds the API key, sent if set and written nowhere. OpenAI's
    goes to https hosts alone; any other host has a variable of its own.
    """
    concurrency: int = 4
    """Requests at the same time."""
    retries: int = 5
    """Further tries where the endpoint is busy, silent or talks nonsense."""
    backoff: float = 1.0
    """Seconds before the first further try, doubled each time; Retry-After goes before it."""
    timeout: float = 120.0
    """Seconds without a byte after which a request counts as lost."""
    longest: float = 900.0
    """Seconds after which it does, whatever has come: an answer that drips is none."""
    max_tokens: int = 2048
    """Longest answer; one that is cut off there is not used."""
    temperature: float = 0.3
    """How freely the model words its answers."""
    prompt_price: float = 0.0
    """Price of a million prompt tokens, in the currency of max_cost."""
    answer_price: float = 0.0
    """Price of a million answer tokens."""
    max_cost: float | None = None
    """No request is sent that could bring the cost of this data set above it."""
    cache: str | None = None
    """Folder of the answers; null takes $GRAFTLAB_CACHE, or ~/.cache/graftlab."""

    def __post_init__(self) -> None:
        for key, least in (("concurrency", 1), ("retries", 0), ("max_tokens", 1)):
            require_range(f"rewriter.{key}", getattr(self, key), least=least)
        for key in ("backoff", "temperature", "prompt_price", "answer_price", "max_cost"):
            require_range(f"rewriter.{key}", getattr(self, key), least=0)
        require_range("rewriter.timeout", self.timeout, above=0)
        require_range("rewriter.longest", self.longest, above=0)
        check_address(self.url, self.key_env, REWRITER)
        if self.max_cost is not None and not (self.prompt_price or self.answer_price):
            raise ConfigError(
                f"rewriter.max_cost={self.max_cost} needs prices to count by: give "
                "rewriter.prompt_price and answer_price, per million tokens."
            )

    def check(self) -> None:
        if not self.model:
            raise ConfigError("rewriter.model is not set: name the model to ask.")
        key_for(self.url, self.key_env)
        self.frame()

    @contextmanager
    def opened(self) -> Iterator[Rewrite]:
        """How to ask; answers of earlier runs are read. Raises ConfigError without a model."""
        self.check()
        yield HttpClient(self).rewrite


class HttpClient:
    """Asks the endpoint that a spec describes; `budget.spent` is what that cost so far."""

    def __init__(self, spec: HttpRewriter) -> None:
        self.spec, self.frame = spec, spec.frame()
        key = key_for(spec.url, spec.key_env)
        self.endpoint = Endpoint(spec.url, key=key, timeout=spec.timeout, longest=spec.longest)
        folder = default_cache() if spec.cache is None else Path(spec.cache).expanduser()
        name = hashlib.sha256(f"{spec.url} {spec.model}".encode()).hexdigest()[:16]
        self.answers = AnswerCache(folder / f"rewriter-{name}.jsonl")
        self.budget = SpendingLimit(
            prompt_price=spec.prompt_price, answer_price=spec.answer_price, limit=spec.max_cost
        )
        self._used: set[str] = set()
        self._stop = threading.Event()
        self._wait_until = 0.0
        self._in_a_row = 0

    def rewrite(self, texts: Sequence[str]) -> list[str | Miss]:
        """One rewrite or Miss per text, in order.

        Raises RewriterError when the endpoint refuses, is down, or the money is spent.
        """
        self._stop.clear()
        sent: dict[str, Future[CachedAnswer | Miss]] = {}
        keys = []
        with ThreadPoolExecutor(self.spec.concurrency) as pool:
            try:
                for text in texts:
                    payload = self._payload(text)
                    told = json.dumps([self.spec.url, payload], sort_keys=True)
                    keys.append(key := hashlib.sha256(told.encode()).hexdigest())
                    if key not in sent:
                        sent[key] = pool.submit(self._answer, key, payload)
                return [_as_rewrite(sent[key].result()) for key in keys]
            except BaseException:
                # Answers under way are still waited for, and kept: they are paid.
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _payload(self, text: str) -> dict[str, Any]:
        turns = asked(self.frame, text).messages
        return {
            "model": self.spec.model,
            "messages": [turn.as_dict() for turn in turns],
            "temperature": self.spec.temperature,
            "max_tokens": self.spec.max_tokens,
        }

    def _answer(self, key: str, payload: dict[str, Any]) -> CachedAnswer | Miss:
        if (kept := self.answers.get(key)) is not None:
            if key not in self._used:
                self._used.add(key)
                self.budget.commit(0.0, self.budget.cost(kept.tokens))
            return kept
        why = "interrupted"
        for attempt in range(self.spec.retries + 1):
            self._pause()
            if self._stop.is_set():
                return Miss("no answer", why)
            found = self._paid(key, payload)
            if isinstance(found, CachedAnswer):
                self._used.add(key)
                self._in_a_row = 0
                return found
            why = found.why
            if isinstance(found, Refused):
                return self._missed(Miss("refused by the endpoint", why))
            if attempt < self.spec.retries:
                pause = self.spec.backoff * 2**attempt if found.after is None else found.after
                # Where the endpoint says how long, everybody waits.
                if found.after is not None:
                    self._wait_until = max(self._wait_until, time.monotonic() + pause)
                self._stop.wait(pause)
        return self._missed(Miss("no answer", f"{self.spec.retries + 1} tries: {why}"))

    def _paid(self, key: str, payload: dict[str, Any]) -> CachedAnswer | Again | Refused:
        """One request, with its worst case set aside while it is under way."""
        guess = sum(len(turn["content"].encode()) for turn in payload["messages"]) // 3 + 64
        worst = self.budget.cost((guess, self.spec.max_tokens))
        if not self.budget.reserve(worst):
            raise RewriterError(
                f"The next rewrite could bring the cost above rewriter.max_cost="
                f"{self.spec.max_cost} ({self.budget.spent:.4f} are spent). What was paid for is "
                f"kept in {self.answers.path}: raise max_cost and run the same command again, and "
                "nothing is paid twice."
            )
        cost = 0.0
        try:
            found = self.endpoint.ask(payload)
            if isinstance(found, CachedAnswer):
                if found.tokens == (0, 0):  # an endpoint that keeps no count
                    found = CachedAnswer(
                        found.text, found.finish, (guess, len(found.text.encode()) // 3)
                    )
                cost = self.budget.cost(found.tokens)
                self.answers.put(key, found)
            elif isinstance(found, Again) and found.paid:
                cost = worst
            return found
        finally:
            self.budget.commit(worst, cost)

    def _pause(self) -> None:
        while (left := self._wait_until - time.monotonic()) > 0 and not self._stop.wait(left):
            pass

    def _missed(self, miss: Miss) -> Miss:
        self._in_a_row += 1
        if self._in_a_row >= GIVE_UP_AFTER:
            self._stop.set()  # at once: those that wait must not ask before the error is seen
            raise RewriterError(
                f"{self.spec.url} gave no answer to {self._in_a_row} texts in a row, last: "
                f"{miss.detail}. Answers so far are kept in {self.answers.path}; run the same "
                "command again when it is up."
            )
        return miss


def _as_rewrite(found: CachedAnswer | Miss) -> str | Miss:
    if isinstance(found, Miss):
        return found
    if found.finish == "length":
        return Miss("answer cut off", "at rewriter.max_tokens")
    return found.text
