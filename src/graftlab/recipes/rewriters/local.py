"""`rewriter=local`: a model on this machine rewrites, loaded as `sample` loads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, require_range
from graftlab.generation.sampling import Generation
from graftlab.models.base import ModelSpec
from graftlab.models.hf import HFModel
from graftlab.models.tiny import TinyModel
from graftlab.recipes.rewriters.base import Miss, PromptedRewriter, Rewrite, asked
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.generation.decode import Reply


@choice("local")
@dataclass(kw_only=True, slots=True)
class LocalRewriter(PromptedRewriter):
    """`rewriter=local rewriter.model=DIR`: any instruct model, with an adapter or without."""

    model: str | None = None
    """Folder of the base model, or `tiny`; null takes the one that `adapter` was trained on."""
    adapter: str | None = None
    """A run folder, adapter folder or checkpoint."""
    max_tokens: int = 1024
    """Longest answer; one that is cut off there is not used."""
    temperature: float = 0.3
    """How freely the model words its answers; 0 takes the likeliest token."""
    batch: int = 8
    """Texts that are answered together."""

    def __post_init__(self) -> None:
        require_range("rewriter.batch", self.batch, least=1)
        require_range("rewriter.max_tokens", self.max_tokens, least=1)
        require_range("rewriter.temperature", self.temperature, least=0)

    def check(self) -> None:
        if self.model is None and self.adapter is None:
            raise ConfigError(
                "rewriter=local needs rewriter.model=DIR (or tiny), or rewriter.adapter=RUN."
            )
        self.frame()
        self.found()

    def found(self) -> TrainedModel:
        """Base and adapter, once their files are there. Raises ConfigError or ModelError."""
        from graftlab.adapters.artifact import TrainedModel, find_artifact

        model: ModelSpec | None = None
        if self.model is not None:
            is_folder = Path(self.model).expanduser().is_dir()
            if not is_folder and self.model != "tiny":
                raise ConfigError(f"rewriter.model={self.model}: there is no such folder.")
            model = HFModel(path=self.model) if is_folder else TinyModel()
            model.check()
        if self.adapter is not None:
            return find_artifact(self.adapter).on_base(model, advice="give rewriter.model=DIR")
        assert model is not None, "checked before"
        return TrainedModel(model.name, model, None)

    @contextmanager
    def opened(self) -> Iterator[Rewrite]:
        """The model, loaded meanwhile. Raises ConfigError or ModelError when it cannot be."""
        trained = self.found()

        import torch

        from graftlab.adapters.attach import load_trained
        from graftlab.generation.decode import generate_batch
        from graftlab.models.arithmetic import fastest_autocast, has_bf16
        from graftlab.models.cache import acquire

        frame = self.frame()
        generation = Generation(max_new_tokens=self.max_tokens, temperature=self.temperature)
        tokenizer = trained.load_tokenizer()
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        dtype = torch.bfloat16 if has_bf16(device)[0] else torch.float32
        with acquire(trained.model, dtype=dtype, device=device) as base:
            load_trained(base, trained, dtype=torch.float32)

            def rewrite(texts: Sequence[str]) -> list[str | Miss]:
                told = [asked(frame, text) for text in texts]
                with fastest_autocast(device):
                    replies = generate_batch(base, tokenizer, told, generation, batch=self.batch)
                return [_as_rewrite(reply) for reply in replies]

            with base.answering():
                yield rewrite


def _as_rewrite(reply: Reply) -> str | Miss:
    if not reply.stopped:
        return Miss("answer cut off", "at rewriter.max_tokens")
    return reply.text.strip() or Miss("empty answer")
