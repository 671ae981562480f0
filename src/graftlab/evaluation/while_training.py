"""The prompts of `callbacks.evaluate`, answered and scored by a run's model as it trains."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from graftlab.data.system import system_of, with_system
from graftlab.errors import ConfigError
from graftlab.evaluation.asking import Replies, score_all
from graftlab.evaluation.likelihoods import option_likelihoods
from graftlab.evaluation.replies import Said
from graftlab.generation.decode import generate_batch
from graftlab.generation.form import check_forms
from graftlab.generation.prompts import Prompt, read_prompts
from graftlab.registry import dump
from graftlab.training.callbacks.spec import Measurer

if TYPE_CHECKING:
    from graftlab.evaluation.metrics.base import Metric
    from graftlab.models.base import Base
    from graftlab.training.callbacks.spec import Rows

ME = "adapter"


class Asking(Measurer):
    """The prompts of one run, ready to be asked."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        rows: Rows,
        *,
        metrics: Mapping[str, Metric],
        measures: Container[str],
        batch: int,
        every_epochs: int | None,
        every_steps: int | None,
    ) -> None:
        """`measures`: those that are given, as METRIC/MEASURE; `batch`: prompts that are answered
        together. Raises ConfigError for replies that cannot be held to their form.
        """
        self.prompts, self.rows, self.batch = list(prompts), rows, batch
        self.metrics, self.measures = metrics, measures
        self.every_epochs, self.every_steps = every_epochs, every_steps
        conversations = [prompt.conversation for prompt in self.prompts]
        check_forms(rows.generation, conversations, rows.tokenizer)
        lengths = [len(self._ids(prompt)) for prompt in self.prompts]
        self.order = sorted(range(len(lengths)), key=lambda place: -lengths[place])

    def measure(self, base: Base) -> dict[str, float]:
        metrics = self.metrics
        likelihoods = {}
        if any(metric.needs_likelihoods for metric in metrics.values()):
            likelihoods[ME] = [self._options(base, prompt) for prompt in self.prompts]
        replies: Replies = {ME: [(said,) for said in self._replies(base)]}
        scores = score_all(metrics, self.prompts, replies, likelihoods, lambda: self.rows.train)
        found: dict[str, float] = {}
        for name, metric in metrics.items():
            for measure, about in metric.measures().items():
                values = [draws[0][measure] for draws in scores[ME][name]]
                known = [value for value in values if value is not None]
                if (told := f"{name.replace('_', '-')}/{measure}") in self.measures and known:
                    found[told] = fmean(known) * about.unit
        return found

    def _replies(self, base: Base) -> list[Said]:
        """In the order of the prompts; the longest are asked first: rows of a batch are alike."""
        asks = [self.prompts[place].conversation for place in self.order]
        how = self.rows.generation
        replies = generate_batch(base, self.rows.tokenizer, asks, how, batch=self.batch)
        said = dict(zip(self.order, replies, strict=True))
        ordered = (said[place] for place in range(len(self.prompts)))
        return [Said(reply.text, reply.num_tokens, reply.stopped, 0.0) for reply in ordered]

    def _options(self, base: Base, prompt: Prompt) -> tuple[float, ...]:
        options = self.rows.tokenizer.encode_text(prompt.options)
        where = prompt.conversation.where
        return option_likelihoods(base, self._ids(prompt), options, where=where)

    def _ids(self, prompt: Prompt) -> list[int]:
        asked = prompt.conversation
        return self.rows.tokenizer.render(asked.messages, tools=asked.tools, generation_prompt=True)


def asked(file: str | None, rows: Rows, *, limit: int | None) -> tuple[list[Prompt], str]:
    """The prompts of a file, else the held-out rows, at most `limit`; and what that is in words.

    Raises ConfigError or DataError where there is none, or one that cannot be asked.
    """
    if file is None:
        held = rows.valid[:limit]
        found = [Prompt(row.without_last_answer(), row.expected) for row in held]
        what = "the held-out rows"
    else:
        reserved, ignore = rows.tokenizer.reserved, rows.data.ignore_keys
        read = read_prompts(file, reserved=reserved, limit=limit, ignore=ignore)
        found = [_asked(prompt, rows) for prompt in read]
        what = f"callbacks.evaluate.prompts={file}"
    if not found:
        raise ConfigError(
            f"callbacks.evaluate has nothing to ask: there are no rows in {what}. Give "
            "callbacks.evaluate.prompts=FILE, or data.valid_fraction=0.1."
        )
    return found, what


def _asked(prompt: Prompt, rows: Rows) -> Prompt:
    """The prompt as training data would have been read."""
    asked = prompt.conversation
    messages = with_system(asked.messages, **system_of({"data": dump(rows.data)}))
    return replace(prompt, conversation=replace(asked, messages=messages))
