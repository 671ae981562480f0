"""`judge=http`: a model behind any OpenAI-compatible endpoint judges, within limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.caches import RowCache
from graftlab.errors import ConfigError, ModelError, require_range
from graftlab.evaluation.judges.base import PromptedJudge
from graftlab.generation.sampling import Generation
from graftlab.recipes.rewriters.answer_cache import CachedAnswer, SpendingLimit
from graftlab.recipes.rewriters.endpoint import Again, Endpoint, Refused
from graftlab.recipes.rewriters.secret import OPENAI, KeyNames, check_address, key_for
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.speakers import Speaker

NAMES = KeyNames("judge.url", "judge.model", "judge.key_env")
MILLION = 1e6


@choice("http")
@dataclass(kw_only=True, slots=True)
class HttpJudge(PromptedJudge):
    """`judge=http judge.model=NAME`; without a url, Ollama on this machine is asked."""

    url: str = "http://127.0.0.1:11434/v1"
    """The endpoint, up to and without /chat/completions."""
    model: str | None = None
    """The model's name there; required."""
    key_env: str | None = OPENAI
    """The environment variable that holds the API key, sent if set and written nowhere. OpenAI's
    goes to https hosts alone; any other host has a variable of its own."""
    concurrency: int = 4
    """Requests at the same time."""
    retries: int = 4
    """Further tries where the endpoint is busy, silent or talks nonsense."""
    timeout: float = 120.0
    """Seconds without a byte after which a request counts as lost."""
    max_requests: int | None = None
    """At most so many requests of one command; what is known from earlier ones is free."""
    max_total_tokens: int | None = None
    """No request is sent that could bring a command's tokens, of prompts and answers, above it."""
    max_cost: float | None = None
    """No request is sent that could bring a command's cost above it."""
    prompt_price: float = 0.0
    """Price of a million prompt tokens, in the currency of max_cost."""
    answer_price: float = 0.0
    """Price of a million answer tokens."""

    def __post_init__(self) -> None:
        self.check_keys()
        for key, least in (("concurrency", 1), ("retries", 0), ("max_requests", 1)):
            require_range(f"judge.{key}", getattr(self, key), least=least)
        for key in ("max_total_tokens", "max_cost", "prompt_price", "answer_price"):
            require_range(f"judge.{key}", getattr(self, key), least=0)
        require_range("judge.timeout", self.timeout, above=0)
        check_address(self.url, self.key_env, NAMES)
        if self.max_cost is not None and not (self.prompt_price or self.answer_price):
            raise ConfigError(
                f"judge.max_cost={self.max_cost} needs prices to count by: give judge.prompt_price "
                "and answer_price, per million tokens."
            )

    def check(self) -> None:
        if not self.model:
            raise ConfigError("judge.model is not set: name the model to ask.")
        key_for(self.url, self.key_env)
        self.frame()

    @contextmanager
    def opened(self, cache: Path) -> Iterator[Speaker]:
        from graftlab.evaluation.endpoint import EndpointSpeaker

        model = str(self.model)
        known = hashlib.sha256(f"{self.url} {model}".encode()).hexdigest()[:16]
        yield EndpointSpeaker(
            model,
            LimitedEndpoint(self),
            url=self.url,
            generation=Generation(max_new_tokens=self.max_tokens),
            system={"system": None, "instruction": None},
            batch=self.concurrency,
            retries=self.retries,
            cache=RowCache(cache / f"judge-{known}.jsonl"),
        )


class LimitedEndpoint(Endpoint):
    """An endpoint that is asked only as long as no limit could be passed."""

    def __init__(self, spec: HttpJudge) -> None:
        key = key_for(spec.url, spec.key_env)
        super().__init__(spec.url, key=key, timeout=spec.timeout, names=NAMES)
        self.answer = spec.max_tokens
        self.limits = {
            "max_requests": SpendingLimit(prompt_price=0, answer_price=0, limit=spec.max_requests),
            "max_total_tokens": SpendingLimit(
                prompt_price=MILLION, answer_price=MILLION, limit=spec.max_total_tokens
            ),
            "max_cost": SpendingLimit(
                prompt_price=spec.prompt_price,
                answer_price=spec.answer_price,
                limit=spec.max_cost,
            ),
        }

    def ask(self, payload: dict[str, Any]) -> CachedAnswer | Again | Refused:
        """Its worst case is set aside while it is under way. Raises ModelError at a limit."""
        guess = sum(len(turn["content"].encode()) for turn in payload["messages"]) // 3 + 64
        worst = self._costs((guess, self.answer))
        aside = self._reserve(worst)
        cost = self._costs((0, 0))
        try:
            found = super().ask(payload)
            if isinstance(found, CachedAnswer):
                told = found.tokens
                if told == (0, 0):  # an endpoint that keeps no count
                    told = (guess, len(found.text.encode()) // 3)
                cost = self._costs(told)
            elif isinstance(found, Again) and found.paid:
                cost = worst
            return found
        finally:
            for name in aside:
                self.limits[name].commit(worst[name], cost[name])

    def _costs(self, tokens: tuple[int, int]) -> dict[str, float]:
        costs = {name: limit.cost(tokens) for name, limit in self.limits.items()}
        return costs | {"max_requests": 1.0}

    def _reserve(self, worst: dict[str, float]) -> list[str]:
        aside: list[str] = []
        for name, limit in self.limits.items():
            if not limit.reserve(worst[name]):
                for other in aside:
                    self.limits[other].commit(worst[other], 0.0)
                raise ModelError(
                    f"The next request could pass judge.{name}={limit.limit:g} "
                    f"({limit.spent:.4g} are used): raise it to go on."
                )
            aside.append(name)
        return aside
