"""What `evaluate` is asked: who answers what, how, and what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.evaluation.judges.base import JudgeSpec, NoJudge
from graftlab.evaluation.metrics.chosen import Metrics
from graftlab.generation.sampling import ROW, Generation
from graftlab.models.base import ModelSpec
from graftlab.recipes.rewriters.secret import OPENAI, KeyNames, check_address
from graftlab.training.precision import Precision

NAMES = KeyNames("endpoint", "endpoint_model", "key_env")


@dataclass(kw_only=True, slots=True)
class EvaluateSpec:
    """`graftlab evaluate adapters=[RUN1,RUN2] prompts=FILE out=DIR`."""

    model: ModelSpec | None = None
    """Base model; null takes the one the adapters were trained on."""
    adapters: Any = field(default_factory=list)
    """Run folders, adapter folders or checkpoints of one base; none evaluates the base alone."""
    checkpoints: str | None = None
    """A run folder whose kept checkpoints are evaluated, each as an adapter."""
    prompts: str | None = None
    """A file of prompts with references; null asks the rows that the adapters' runs held out."""
    limit: int | None = None
    """Only the first N prompts."""
    metrics: Metrics = field(default_factory=Metrics)
    out: str | None = None
    """The folder for results.json, replies.jsonl and report.html; null shows the tables alone."""
    blind: bool = False
    """Write blind.html as well, where people choose between two replies without names."""
    votes: Any = None
    """Files that such a page saved: they are folded into the results. Give the same command."""
    judge: JudgeSpec | None = None
    """A model that compares every two replies; null is judge=none."""
    draws: int = 1
    """Replies to each prompt, 1,000 at most; more than one needs generation.temperature."""
    sequential: bool = False
    """Ask in random order, and stop when all that differs is told apart; tests allow for that."""
    decides: list[str] = field(default_factory=list)
    """With sequential, the metrics or measures that decide when to stop, such as exact-match or
    style.avg_banned_hits; none named takes all that are judged."""
    scale: float = 1.0
    """Strength of every adapter: 1 as trained, 0.7 softer."""
    batch: int = 16
    """Prompts that are answered together, and requests at the same time."""
    endpoint: str | None = None
    """An OpenAI-compatible endpoint to evaluate as well, up to and without /chat/completions."""
    endpoint_model: str | None = None
    """The model's name there."""
    key_env: str | None = OPENAI
    """The environment variable that holds the API key, sent if set and written nowhere. OpenAI's
    goes to https hosts alone; any other host has a variable of its own."""
    retries: int = 4
    """Further tries where the endpoint is busy, silent or talks nonsense."""
    timeout: float = 120.0
    """Seconds without a byte after which a request counts as lost."""
    cache: str | None = None
    """Folder of the replies; null takes $GRAFTLAB_CACHE, or ~/.cache/graftlab."""
    precision: Precision = field(default_factory=Precision)
    generation: Generation = field(default_factory=Generation)
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if isinstance(self.adapters, str):
            self.adapters = [self.adapters]
        require_choice("device", self.device, ("auto", "cpu", "cuda", "mps"))
        for key, least in (("limit", 1), ("batch", 1), ("retries", 0), ("scale", 0)):
            require_range(key, getattr(self, key), least=least)
        require_range("draws", self.draws, least=1, most=1000)
        require_range("timeout", self.timeout, above=0)
        if problems := list(self._problems()):
            raise ConfigError("\n".join(problems))

    @property
    def _speakers(self) -> int:
        """How many answer at least."""
        trained = self.adapters or self.checkpoints is not None
        return (2 if trained else self.model is not None) + (self.endpoint is not None)

    def _problems(self) -> Iterator[str]:
        """What does not fit together, one line each."""
        trained = self.adapters or self.checkpoints is not None
        if not trained and self.model is None and self.endpoint is None:
            yield "Give adapters=[RUN], model=tiny (or another) for a base alone, or endpoint=URL."
        if not trained and self.prompts is None:
            yield "Give prompts=FILE: only adapters have held-out rows of their own."
        if not trained and self.scale != 1:
            yield f"scale={self.scale} needs adapters: give adapters=[RUN]."
        if self.draws > 1 and self.generation.temperature == 0:
            yield (
                f"draws={self.draws} would be the same reply each time: give "
                "generation.temperature=0.8 (generation=creative)."
            )
        if self.blind and self.out is None:
            yield "blind=true writes a page: give out=DIR."
        judged = not isinstance(self.judge, NoJudge | None)
        if (self.blind or self.votes or judged) and self._speakers < 2:
            yield "blind, votes and judge compare models, and there is one: give adapters=[RUN]."
        if self.decides and not self.sequential:
            yield "decides says when to stop asking: give sequential=true as well."
        if self.sequential and self._speakers < 2:
            yield "sequential=true compares models, and there is one: give adapters=[RUN]."
        if self.endpoint is not None:
            check_address(self.endpoint, self.key_env, NAMES)
            if not self.endpoint_model:
                yield (
                    f"endpoint={self.endpoint} needs endpoint_model=NAME: what the model is "
                    "called there."
                )
            if self.generation.schema not in (None, ROW):
                yield "generation.schema holds replies of models on this machine alone."
            for key in ("top_k", "min_p"):
                if getattr(self.generation, key) is not None:
                    yield f"generation.{key} is no part of what an endpoint is asked."
