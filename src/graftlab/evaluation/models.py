"""A base and its adapters as speakers: the base is loaded once, and adapters take turns on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graftlab import __version__
from graftlab.data.system import with_system
from graftlab.errors import ModelError
from graftlab.evaluation.likelihoods import option_likelihoods
from graftlab.evaluation.replies import Said
from graftlab.evaluation.speakers import Ask, Report, Speaker, digest
from graftlab.generation.decode import generate_batch
from graftlab.registry import dump

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.caches import RowCache
    from graftlab.generation.decode import Reply
    from graftlab.generation.prompts import Prompt
    from graftlab.generation.sampling import Generation
    from graftlab.models.base import Base
    from graftlab.serving.models import ServedModel
    from graftlab.training.precision import Resolved
    from graftlab.types import Conversation


class LocalSpeaker(Speaker):
    """The base, or one adapter on it."""

    def __init__(
        self,
        served: ServedModel,
        trained: TrainedModel,
        *,
        base: Base,
        precision: Resolved,
        generation: Generation,
        scale: float,
        batch: int,
        cache: RowCache,
        facts: Mapping[str, Any],
    ) -> None:
        """`scale`: the adapter's strength; `batch`: prompts that are answered together; `facts`:
        what else the results tell of it.
        """
        self.name, self.cache = served.name, cache
        self.base, self.served, self.generation = base, served, generation
        self.precision, self.batch = precision, batch
        self.scale = scale if served.adapter is not None else 1.0
        fingerprint = trained.fingerprint()
        self.told = {
            "path": trained.path,
            "fingerprint": fingerprint,
            **({} if served.adapter is None else {"scale": self.scale}),
            **{key: value for key, value in served.system.items() if value},
            **facts,
        }
        self._same = [__version__, fingerprint, self.scale, precision.name, base.device.type]

    def key(self, prompt: Prompt, draw: int) -> str:
        asked = self._asked(prompt)
        formats = [message.response_format for message in asked.messages]
        tokenizer = self.served.tokenizer
        drawn = dump(self._drawn(draw))
        return digest([*self._same, self._rendered(asked), tokenizer.stop_ids, drawn, formats])

    def answer(self, asks: Sequence[Ask], report: Report) -> None:
        """Those of one draw together, the longest prompts first: replies to short ones end it."""
        by_draw: dict[int, list[Ask]] = {}
        for ask in asks:
            by_draw.setdefault(ask.draw, []).append(ask)
        for draw, group in sorted(by_draw.items()):
            group.sort(key=lambda ask: -len(self._rendered(self._asked(ask.prompt))))
            self._answer(group, self._drawn(draw), report)

    def _answer(self, asks: Sequence[Ask], generation: Generation, report: Report) -> None:
        """A reply's time is its share, by tokens, of all that has passed when it is whole."""
        tokens = 0

        def keep(place: int, reply: Reply) -> None:
            nonlocal tokens
            tokens += reply.num_tokens
            share = round(reply.seconds * reply.num_tokens / max(tokens, 1), 6)
            said = Said(reply.text, reply.num_tokens, reply.stopped, share)
            self.cache.put(asks[place].key, said.as_row())
            report(1, reply.num_tokens)

        conversations = [self._asked(ask.prompt) for ask in asks]
        generate_batch(
            self.base,
            self.served.tokenizer,
            conversations,
            generation,
            batch=self.batch,
            on_reply=keep,
        )

    def likelihoods(self, prompt: Prompt) -> tuple[float, ...]:
        ids = self._rendered(self._asked(prompt))
        options = self.served.tokenizer.encode_text(prompt.options)
        return option_likelihoods(self.base, ids, options, where=prompt.conversation.where)

    @contextmanager
    def ready(self) -> Iterator[None]:
        with self.served.speaking(), self.precision.autocast(), self.base.answering():
            if self.served.adapter is None or self.scale == 1:
                yield
                return
            with self.served.adapter.scaled(self.scale):
                yield

    def _asked(self, prompt: Prompt) -> Conversation:
        """The prompt as training data would have been read."""
        conversation = prompt.conversation
        messages = with_system(conversation.messages, **self.served.system)
        return replace(conversation, messages=messages)

    def _rendered(self, asked: Conversation) -> list[int]:
        try:
            return self.served.tokenizer.render(
                asked.messages, tools=asked.tools, generation_prompt=True
            )
        except ModelError as error:
            raise ModelError(f"{asked.where}: {error}") from error

    def _drawn(self, draw: int) -> Generation:
        """The decoding of one draw: its own seed."""
        return replace(self.generation, seed=self.generation.seed + draw)
