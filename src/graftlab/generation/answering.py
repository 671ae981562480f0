"""How `sample` gets its replies: one prompt after the other or in batches, with a draft or without.

voice      who answers: the base alone, or with its adapter at some strength
plain      with a draft and compare=true: the same voice without the draft, for the speed-up
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
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
    with screen.counting(len(prompts)) as count:
        waiting = iter(enumerate(prompts, start=1))
        while group := list(islice(waiting, batch)):
            if batch == 1:
                ((index, prompt),) = group
                screen.ask(prompt.conversation, index=index, total=len(prompts))
                found = [_replies(asked, prompt, voices, screen)]
            else:
                found = _replies_together(asked, [prompt for _, prompt in group], voices)
            for (index, prompt), replies in zip(group, found, strict=True):
                if batch > 1:
                    screen.ask(prompt.conversation, index=index, total=len(prompts))
                answer = Answer(prompt, replies)
                screen.show(answer)
                count(answer)
                yield answer


def _replies(
    asked: Asked, prompt: Prompt, voices: Sequence[Voice], screen: Screen
) -> dict[str, Reply]:
    replies = {}
    for voice in voices:
        speak = partial(
            generate,
            asked.base,
            asked.tokenizer,
            prompt.conversation,
            asked.generation,
            draft=voice.draft,
        )
        with voice.setting(), asked.autocast():
            replies[voice.name] = screen.hear(voice.name, speak)
    return replies


def _replies_together(
    asked: Asked, prompts: Sequence[Prompt], voices: Sequence[Voice]
) -> list[dict[str, Reply]]:
    conversations = [prompt.conversation for prompt in prompts]
    found: list[dict[str, Reply]] = [{} for _ in prompts]
    for voice in voices:
        with voice.setting(), asked.autocast():
            heard = generate_batch(asked.base, asked.tokenizer, conversations, asked.generation)
        for replies, reply in zip(found, heard, strict=True):
            replies[voice.name] = reply
    return found
