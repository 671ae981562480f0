"""How `sample` gets its replies: one prompt after the other or in batches, with a draft or without.

voice      who answers: the base alone, or with its adapter at some strength
plain      with a draft and compare=true: the same voice without the draft, for the speed-up
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from graftlab.generation.decode import Reply, generate, generate_batch
from graftlab.generation.show import PLAIN, Answer, Screen
from graftlab.generation.speculative import Draft

if TYPE_CHECKING:
    from graftlab.generation.prompts import Prompt
    from graftlab.generation.sampling import Generation
    from graftlab.models.base import Base
    from graftlab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Voice:
    """One who answers."""

    name: str
    setting: Callable[[], AbstractContextManager[Any]]
    """The context in which the base speaks as that."""
    draft: Draft | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What all prompts have in common."""

    base: Base
    tokenizer: Tokenizer
    generation: Generation
    autocast: Callable[[], AbstractContextManager[Any]]


def with_draft(voices: Sequence[Voice], draft: Draft | None, *, compare: bool) -> list[Voice]:
    """The voices; the last one speaks with the draft, and before that without, to compare."""
    if draft is None:
        return list(voices)
    *others, main = voices
    plain = [Voice(PLAIN, main.setting)] if compare else []
    return [*others, *plain, Voice(main.name, main.setting, draft)]


def answers(
    asked: Asked, prompts: Sequence[Prompt], voices: Sequence[Voice], screen: Screen, *, batch: int
) -> Iterator[Answer]:
    """Every prompt's answer, shown as it comes. Raises ModelError for a prompt that is too long."""
    total = len(prompts)
    with asked.base.answering(), screen.counting(total) as count:
        for start in range(0, total, batch):
            group = prompts[start : start + batch]
            if batch == 1:  # before the reply, which may be streamed
                screen.ask(group[0].conversation, index=start + 1, total=total)
            found = _replies(asked, group, voices, screen, batch=batch)
            for place, (prompt, replies) in enumerate(zip(group, found, strict=True), start + 1):
                if batch > 1:
                    screen.ask(prompt.conversation, index=place, total=total)
                answer = Answer(prompt, replies)
                screen.show(answer)
                count(answer)
                yield answer


def _replies(
    asked: Asked, prompts: Sequence[Prompt], voices: Sequence[Voice], screen: Screen, *, batch: int
) -> list[dict[str, Reply]]:
    """What every voice says to each prompt: together, or to a single one as it is streamed."""
    base, tokenizer, generation = asked.base, asked.tokenizer, asked.generation
    conversations = [prompt.conversation for prompt in prompts]
    found: list[dict[str, Reply]] = [{} for _ in prompts]
    for voice in voices:
        with voice.setting(), asked.autocast():
            if batch > 1:
                heard = generate_batch(base, tokenizer, conversations, generation)
            else:
                (ask,) = conversations
                speak = partial(generate, base, tokenizer, ask, generation, draft=voice.draft)
                heard = [screen.hear(voice.name, speak)]
        for replies, reply in zip(found, heard, strict=True):
            replies[voice.name] = reply
    return found
