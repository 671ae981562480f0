"""A fresh small model of a teacher's architecture and tokenizer: what a draft begins as."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.artifact import base_of, find_artifact
from graftlab.adapters.store import AdapterSource
from graftlab.caches import default_cache, is_intact, made_alone
from graftlab.errors import ConfigError, ModelError, require_choice, require_range
from graftlab.files.building import building
from graftlab.files.checksums import write_checksums
from graftlab.models.architecture import Published
from graftlab.models.base import ModelSpec
from graftlab.models.folder import model_in
from graftlab.registry import choice
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import holds_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from graftlab.models.base import Base
    from graftlab.text.tokenizer import Tokenizer

TOKENIZER_FILES = ("tokenizer*", "vocab.json", "merges.txt", "*tokens*.json", "*template*")
"""What a tokenizer with its template may consist of."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a draft is made after."""

    model: ModelSpec
    tokenizer: Path | None = None
    """The folder of the tokenizer that a run was trained with; None for the model's own."""


@choice("draft")
@dataclass(kw_only=True, slots=True)
class DraftModel(ModelSpec):
    """`model=draft model.of=RUN`: built once from a seed, and kept in the cache."""

    of: str | None = None
    """The run, adapter folder or model folder whose architecture and tokenizer are taken."""
    layers: int | None = None
    """Decoder layers; null takes a quarter of the teacher's."""
    hidden: int | None = None
    """Hidden size; null takes a quarter of the teacher's, or what its kind of model says. Heads and
    MLP follow in proportion."""
    seed: int = 0
    """Seed of the initial weights."""
    embedding: str = "projected"
    """projected: the teacher's embedding on its principal directions; fresh: drawn as the rest."""

    def __post_init__(self) -> None:
        ModelSpec.__post_init__(self)
        require_choice("model.embedding", self.embedding, ("projected", "fresh"))
        require_range("model.layers", self.layers, least=1)
        require_range("model.hidden", self.hidden, least=2)
        require_range("model.seed", self.seed, least=0)
        if self.of is None:
            raise ConfigError(
                "model=draft needs model.of=RUN (or a model folder), after which it is made; "
                "with objective=distill it is the teacher's (objective.teacher=RUN)."
            )

    @property
    def name(self) -> str:
        return f"a draft of {Path(self.of or '').name}"

    def check(self) -> None:
        self._plan(self._pattern())

    def folder(self) -> Path:
        pattern = self._pattern()
        plan = self._plan(pattern)
        home = default_cache() / f"draft-{self._key(pattern, plan)}"
        if not is_intact(home):
            with made_alone(home):
                if not is_intact(home):  # else another process was first
                    with building(home) as made:
                        self._build(pattern, made)
                        write_checksums(made)
        return home

    def made(self) -> ModelSpec:
        spec = model_in(self.folder())
        assert spec is not None, "a model was made"
        spec.template, spec.attention = self.template, self.attention
        spec.gradient_checkpointing = self.gradient_checkpointing
        return spec

    @property
    def published(self) -> Published | None:
        return self.made().published

    @property
    def compile_obstacle(self) -> str | None:
        return self.made().compile_obstacle

    @property
    def num_bytes(self) -> int:
        return self.made().num_bytes

    def fingerprint(self) -> str:
        return self.made().fingerprint()

    def weight_files(self) -> list[Path]:
        return self.made().weight_files()

    def read_weights(self) -> dict[str, Tensor]:
        return self.made().read_weights()

    def load_tokenizer(self, folder: Path | None = None) -> Tokenizer:
        return self.made().load_tokenizer(folder)

    def load(self, *, dtype: torch.dtype, device: torch.device) -> Base:
        base = self.made().load(dtype=dtype, device=device)
        base.name = self.name
        return base

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Errors of what `of` is say so."""
        try:
            yield
        except (ConfigError, ModelError) as error:
            raise ModelError(f"model.of={self.of}: {error}") from error

    def _pattern(self) -> Pattern:
        """The model that it is made after; its weights are not needed. Raises ModelError."""
        assert self.of is not None, "checked when it was built"
        with self._errors_named():
            artifact = find_artifact(self.of)
            if artifact.whole is not None:
                artifact.whole.template = self.template
                return Pattern(artifact.whole)
            adapter = artifact.require_adapter()
            base = _base(adapter)
            saved = holds_tokenizer(adapter.folder)
            return Pattern(base.made(), adapter.folder if saved else None)

    def _plan(self, pattern: Pattern) -> dict[str, Any]:
        """What will be made, in plain content: all of it that the weights do not say."""
        with self._errors_named():
            return pattern.model.plan_draft(layers=self.layers, hidden=self.hidden)

    def _key(self, pattern: Pattern, plan: dict[str, Any]) -> str:
        """Hash of all that decides the folder's content."""
        said = [plan, self.seed, pattern.model.template]
        if self.embedding == "projected":
            said.append(pattern.model.fingerprint())
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        folder = pattern.tokenizer or pattern.model.description() or pattern.model.folder()
        for file in sorted({file for name in TOKENIZER_FILES for file in folder.glob(name)}):
            if file.is_file():
                digest.update(f"\0{file.name}\0".encode())
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def _build(self, pattern: Pattern, folder: Path) -> None:
        """Initial weights, config and tokenizer into `folder`."""
        sizes = {"layers": self.layers, "hidden": self.hidden}
        with self._errors_named():
            pattern.model.build_draft(folder, **sizes, seed=self.seed, embedding=self.embedding)
        saved = pattern.tokenizer
        tokenizer = load_tokenizer(saved) if saved else pattern.model.load_tokenizer()
        tokenizer.save(folder)


def _base(adapter: AdapterSource) -> ModelSpec:
    """The base that an adapter's run names, or its own config by a folder; weights may be gone."""
    named = adapter.config().get("base_model_name_or_path")
    if named and not adapter.run() and (model := model_in(Path(str(named)))) is not None:
        return model
    advice = "give model.of=MODEL_FOLDER"
    return base_of(adapter, advice=advice, check=lambda model: model.description())
