"""mlx-lm, on a GPU or its CPU backend: a base and an exported adapter, in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.exports.runtimes.base import Runtime, Scores
from graftlab.text.template import functions

if TYPE_CHECKING:
    from graftlab.types import Message


@dataclass
class MLXRuntime(Runtime):
    """What `mlx_lm.generate --model MODEL --adapter-path ADAPTER` runs."""

    model: Path
    adapter: Path
    trust: bool = False
    ends_replies: bool = False
    """mlx-lm takes the ends of its model's folder, which is the base's."""
    _inner: Any = field(default=None, init=False, repr=False)
    _template: Any = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        import mlx_lm

        return f"mlx-lm {mlx_lm.__version__}"

    @contextmanager
    def opened(self) -> Iterator[None]:
        from mlx_lm.utils import load_tokenizer

        self._inner, config = self._loaded()
        ends = config.get("eos_token_id")
        self._template = load_tokenizer(
            self.model, {"trust_remote_code": self.trust}, eos_token_ids=ends
        )
        try:
            from mlx_lm.utils import load_adapters

            self._inner = load_adapters(self._inner, str(self.adapter))
            self._in_fp32()
            yield
        finally:
            self._inner = self._template = None

    def _loaded(self) -> tuple[Any, dict[str, Any]]:
        from mlx_lm.utils import load_model

        model, config = load_model(self.model, trust_remote_code=self.trust)
        return model, dict(config)

    def _in_fp32(self) -> None:
        import mlx.core as mx

        self._inner.set_dtype(mx.float32)
        self._inner.eval()

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        turns = [message.as_dict() for message in messages]
        ids = self._template.apply_chat_template(
            turns, tools=functions(tools), add_generation_prompt=True, return_dict=False
        )
        return [int(token) for token in ids]

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Scores:
        import mlx.core as mx
        import numpy as np
        import torch

        told = self._inner(mx.array([[*prompt, *answer]]))[0, len(prompt) - 1 : -1]
        full = torch.from_numpy(np.array(told.astype(mx.float32))).log_softmax(-1)
        return Scores(full.gather(1, torch.tensor(answer)[:, None])[:, 0], full)

    def reply(self, prompt: Sequence[int], most: int) -> list[int]:
        return [int(one.token) for one in self._generated(prompt, most)]

    def ends_at(self, token: int) -> bool:
        import mlx.core as mx

        def forced(ids: Any, logits: Any) -> Any:
            return mx.where(mx.arange(logits.shape[-1]) == token, 0.0, -mx.inf)[None]

        *_, last = self._generated([token], 2, logits_processors=[forced])
        return bool(last.finish_reason == "stop")

    def _generated(self, prompt: Sequence[int], most: int, **more: Any) -> list[Any]:
        from mlx_lm.generate import stream_generate

        return list(
            stream_generate(self._inner, self._template, list(prompt), max_tokens=most, **more)
        )

    @contextmanager
    def alone(self) -> Iterator[bool]:
        self._inner, _ = self._loaded()
        self._in_fp32()
        yield True
