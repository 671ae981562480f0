"""`judge=local`: a model on this machine judges, loaded as those that answer are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.caches import RowCache
from graftlab.errors import ConfigError, require_range
from graftlab.evaluation.judges.base import PromptedJudge
from graftlab.generation.sampling import Generation
from graftlab.models.base import ModelSpec
from graftlab.models.hf import HFModel
from graftlab.models.tiny import TinyModel
from graftlab.registry import choice
from graftlab.serving.models import find_models
from graftlab.training.precision import Precision

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.evaluation.speakers import Speaker


@choice("local")
@dataclass(kw_only=True, slots=True)
class LocalJudge(PromptedJudge):
    """`judge=local judge.model=DIR`: any instruct model, with an adapter or without."""

    model: str | None = None
    """Folder of the base model, or `tiny`; null takes the one that `adapter` was trained on."""
    adapter: str | None = None
    """A run folder, adapter folder or checkpoint."""
    batch: int = 16
    """Pairs that are judged together."""

    def __post_init__(self) -> None:
        self.check_keys()
        require_range("judge.batch", self.batch, least=1)

    def check(self) -> None:
        if self.model is None and self.adapter is None:
            raise ConfigError("judge=local needs judge.model=DIR (or tiny), or judge.adapter=RUN.")
        self.frame()
        self.found()

    def found(self) -> dict[str, TrainedModel]:
        """Base and adapter by name, once their files are there. Raises ConfigError, ModelError."""
        model: ModelSpec | None = None
        if self.model is not None:
            is_folder = Path(self.model).expanduser().is_dir()
            if not is_folder and self.model != "tiny":
                raise ConfigError(f"judge.model={self.model}: there is no such folder.")
            model = HFModel(path=self.model) if is_folder else TinyModel()
        return find_models([] if self.adapter is None else [self.adapter], model)

    @contextmanager
    def opened(self, cache: Path) -> Iterator[Speaker]:
        from graftlab.evaluation.models import LocalSpeaker
        from graftlab.models.cache import acquire
        from graftlab.serving.models import load_models
        from graftlab.training.device import pick_device
        from graftlab.training.precision import resolve

        found = self.found()
        *_, name = found  # the adapter, where there is one
        precision = resolve(Precision(), device := pick_device("auto", key="device"))
        model, dtype = found[name].model, precision.base_dtype
        with acquire(model, dtype=dtype, device=device) as base:
            served = load_models(base, found, dtype=precision.adapter_dtype)
            speaker = LocalSpeaker(
                served[name],
                found[name],
                base=base,
                precision=precision,
                generation=Generation(max_new_tokens=self.max_tokens),
                scale=1.0,
                batch=self.batch,
                facts={},
                cache=RowCache(cache / f"judge-{base.fingerprint}.jsonl"),
            )
            speaker.name = base.name if self.adapter is None else name
            yield speaker
