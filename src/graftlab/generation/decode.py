"""From a conversation to a reply: Hugging Face `generate` with a KV cache, every setting ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from graftlab.errors import ModelError
from graftlab.generation.sampling import Generation
from graftlab.types import Conversation

if TYPE_CHECKING:
    from graftlab.models.base import Base
    from graftlab.models.hf_base import HFBase
    from graftlab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered."""

    text: str
    num_tokens: int
    """Tokens drawn, the stop token included."""
    stopped: bool
    """The model ended its turn; otherwise it ran into max_new_tokens or the end of its context."""
    seconds: float
    """Reading the prompt included."""

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / max(self.seconds, 1e-9)


def generate(
    base: Base,
    tokenizer: Tokenizer,
    conversation: Conversation,
    generation: Generation,
    *,
    on_text: Callable[[str], None] | None = None,
) -> Reply:
    """The assistant's next turn, by the base with whatever adapter is on at the moment.

    `on_text` receives the text as it grows: the pieces joined are `Reply.text`, and none holds half
    a character. The draw has its own random stream, so training does not notice it; a reply depends
    on the conversation and `generation` alone. Raises ModelError when the prompt leaves no room in
    the model's context; where less than `max_new_tokens` is left, the reply ends with the context.
    """
    prompt = tokenizer.render(
        conversation.messages, tools=conversation.tools, generation_prompt=True
    )
    config = to_hf(
        generation,
        stop_ids=tokenizer.stop_ids,
        max_new_tokens=min(generation.max_new_tokens, _room(base, len(prompt), conversation.where)),
    )
    input_ids = torch.tensor([prompt], dtype=torch.long, device=base.device)  # (1, T)
    text = TextStream(tokenizer, on_text)
    hugging_face = cast("HFBase", base)
    start = time.perf_counter()
    with (
        torch.no_grad(),
        hugging_face.plain(),
        _only(base.model, config),
        own_stream(base.device, generation.seed),
    ):
        hugging_face.model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            generation_config=config,
            streamer=text,
        )
    return Reply(
        text.text, len(text.ids), text.ids[-1] in tokenizer.stop_ids, time.perf_counter() - start
    )


def to_hf(
    generation: Generation, *, stop_ids: tuple[int, ...], max_new_tokens: int
) -> GenerationConfig:
    """Our parameters as Hugging Face's, each said outright: its own defaults include top_k=50."""
    drawn: dict[str, Any] = {"do_sample": False}
    if generation.temperature > 0:
        drawn = {
            "do_sample": True,
            "temperature": generation.temperature,
            "top_k": generation.top_k or 0,
            "top_p": 1.0 if generation.top_p is None else generation.top_p,
            "min_p": generation.min_p,
        }
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=stop_ids[0] if stop_ids else 0,
        use_cache=True,
        **drawn,
    )


def _room(base: Base, length: int, where: str) -> int:
    """Tokens that the model's context still holds behind a prompt of `length` tokens."""
    context = base.max_length
    if context is not None and length >= context:
        raise ModelError(
            f"{where}: the prompt has {length} tokens, and {base.name} has room for {context} "
            "together with the reply. Shorten the prompt."
        )
    return context - length if context is not None else 2**31


@contextmanager
def _only(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Hide the sampling defaults of the model's folder, which `generate` would mix into ours."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def own_stream(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from a fresh stream of `seed` inside; the process's generators are left untouched."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    elif device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


class TextStream(BaseStreamer):  # type: ignore[misc]
    """Collects drawn tokens and hands on their text as soon as it is certain."""

    def __init__(self, tokenizer: Tokenizer, on_text: Callable[[str], None] | None = None) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """The prompt first, (1, T), then each drawn token, (1,)."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.ids.extend(value.flatten().tolist())
        # The whole reply is decoded each time: what a token looks like depends on those before it.
        # A character of which some bytes are missing decodes to U+FFFD; it waits for the rest.
        text = self._tokenizer.decode(self.ids).rstrip("\ufffd")
        if text.startswith(self.text) and len(text) > len(self.text):
            if self._on_text is not None:
                self._on_text(text[len(self.text) :])
            self.text = text

    def end(self) -> None:
        """Nothing is held back but half a character, which stays unshown."""
