"""A fresh small model of a teacher's architecture and tokenizer: what a draft begins as."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.caches import default_cache
from graftlab.errors import ConfigError, GraftlabError, ModelError, require_choice, require_range
from graftlab.models.architecture import Architecture
from graftlab.models.base import ModelSpec
from graftlab.models.fingerprint import fingerprint
from graftlab.models.hf import HFModel
from graftlab.models.shrink import shrink
from graftlab.models.tiny import TinyModel
from graftlab.models.weights import read_json

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt"),
    *("added_tokens.json", "special_tokens_map.json", "chat_template.jinja"),
)
"""What a tokenizer with its template may consist of."""
TOKENIZERS = TOKENIZER_FILES[:3]
"""One of these is there where there is a tokenizer."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a draft is made after: a folder with config.json, and one with the tokenizer."""

    model: HFModel
    config: Path
    tokenizer: Path


@dataclass(kw_only=True, slots=True)
class DraftModel(HFModel):
    """`model=draft model.of=RUN`: built once from a seed, and kept in the cache."""

    of: str | None = None
    """The run, adapter folder or model folder whose architecture and tokenizer are taken."""
    layers: int | None = None
    """Decoder layers; null takes a quarter of the teacher's."""
    hidden: int | None = None
    """Hidden size; null takes a quarter of the teacher's. Heads and MLP follow in proportion."""
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
        if self.path or self.hub or self.revision:
            raise ConfigError("model=draft makes its model; use model=hf for path and hub.")
        if self.of is None:
            raise ConfigError(
                "model=draft needs model.of=RUN (or a model folder), after which it is made; "
                "with objective=distill it is the teacher's (objective.teacher=RUN)."
            )

    @property
    def name(self) -> str:
        return f"a draft of {Path(self.of or '').name}"

    @property
    def on_disk(self) -> bool:
        return True

    def check(self) -> None:
        self._config(self._pattern())

    def folder(self) -> Path:
        pattern = self._pattern()
        config = self._config(pattern)
        home = default_cache() / f"draft-{self._key(pattern, config)}"
        if not (home / "config.json").is_file():
            home.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".draft-", dir=home.parent) as scratch:
                made = Path(scratch) / "model"
                self._build(pattern, config, made)
                _settle(made, home)
        return home

    def _pattern(self) -> Pattern:
        """Where config and tokenizer lie; weights are not needed. Raises ModelError."""
        assert self.of is not None, "checked when it was built"
        place = Path(self.of).expanduser()
        try:
            if (place / "config.json").is_file():
                model = HFModel(path=str(place), template=self.template)
                return Pattern(model, model.folder(), model.folder())
            return _pattern_of_run(self.of)
        except ModelError as error:
            raise ModelError(f"model.of={self.of}: {error}") from error

    def _config(self, pattern: Pattern) -> dict[str, Any]:
        content = read_json(pattern.config / "config.json")
        if "auto_map" in content:
            raise ModelError(
                f"model.of={self.of}: a draft is made of architectures that transformers knows; "
                "this one brings code of its own. Give a small model with model=hf model.path=DIR."
            )
        try:
            return shrink(content, layers=self.layers, hidden=self.hidden)
        except ModelError as error:
            raise ModelError(f"model.of={self.of}: {error}") from error

    def _key(self, pattern: Pattern, config: dict[str, Any]) -> str:
        """Hash of all that decides the folder's content."""
        said = [config, self.seed, pattern.model.template]
        if self.embedding == "projected":
            said.append(fingerprint(pattern.model.folder()))
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for name in TOKENIZER_FILES:
            if (pattern.tokenizer / name).is_file():
                digest.update(f"\0{name}\0".encode())
                digest.update((pattern.tokenizer / name).read_bytes())
        return digest.hexdigest()[:16]

    def _build(self, pattern: Pattern, config: dict[str, Any], folder: Path) -> None:
        """Initial weights, config and tokenizer into `folder`."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from graftlab.models.project import project_embedding
        from graftlab.text.tokenizer import load_tokenizer

        fields = {key: value for key, value in config.items() if key != "model_type"}
        try:
            made = AutoConfig.for_model(config["model_type"], **fields)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
        except (ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
            raise ModelError(
                f"model.of={self.of}: no draft of this shape can be made: {error}"
            ) from error
        if self.embedding == "projected":
            project_embedding(model, pattern.model.folder())
        model.save_pretrained(folder)
        own = pattern.tokenizer == pattern.config
        template = pattern.model.template if own else None
        load_tokenizer(pattern.tokenizer, template=template).save(folder)


def _pattern_of_run(path: str) -> Pattern:
    """What a run was trained on, and the tokenizer that it was trained with."""
    from graftlab.adapters.store import ModelSource, find_adapter

    source = find_adapter(path)
    if isinstance(source, ModelSource):
        model = HFModel(path=str(source.folder))
        return Pattern(model, source.folder, source.folder)
    described = source.run().get("model")
    model = _base(described) if described else _named(source.config())
    try:
        config = model.description()
    except GraftlabError as error:
        raise ModelError(f"its base is not here: {error}") from error
    assert config is not None, "folders and hub ids have a description"
    saved = any((source.folder / name).is_file() for name in TOKENIZERS)
    return Pattern(model, config, source.folder if saved else config)


def _base(described: dict[str, Any]) -> HFModel:
    """The spec of a run's base, as `run.yaml` holds it."""
    kinds: dict[str, type[HFModel]] = {"hf": HFModel, "tiny": TinyModel, "draft": DraftModel}
    fields = dict(described)
    kind = kinds.get(str(fields.pop("choice", None)))
    if kind is None:
        raise ModelError(
            f"its base is a {described.get('choice')}, of which no draft is made yet. Give a small "
            "model of the same tokenizer with model=hf model.path=DIR."
        )
    fields["architecture"] = Architecture(**(fields.get("architecture") or {}))
    return kind(**fields)


def _named(config: dict[str, Any]) -> HFModel:
    """The base that an adapter's own config names, where it is a folder."""
    named = str(config.get("base_model_name_or_path"))
    if not Path(named).is_dir():
        raise ModelError(
            f"it has no run.yaml that says which base it belongs to (its config names {named}): "
            "give model.of=MODEL_FOLDER."
        )
    return HFModel(path=named)


def _settle(made: Path, home: Path) -> None:
    """Rename into the cache; where another process was first, its equal folder stays."""
    try:
        os.replace(made, home)
    except OSError:
        if not (home / "config.json").is_file():
            shutil.rmtree(home, ignore_errors=True)
            os.replace(made, home)
