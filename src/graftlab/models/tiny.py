"""The embedded base: a few million parameters, pretrained by this repository on its own text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.models.base import ModelSpec
from graftlab.models.hf import HFModel
from graftlab.registry import choice

ASSET = Path(__file__).parent.parent / "assets" / "tiny"


@choice("tiny")
@dataclass(kw_only=True, slots=True)
class TinyModel(HFModel):
    """`model=tiny`: needs no path, no network and no GPU."""

    template: str | None = "chatml"
    """Chat template: the tiny base was pretrained with ChatML."""

    def __post_init__(self) -> None:
        ModelSpec.__post_init__(self)
        if self.path or self.hub or self.revision:
            raise ConfigError(
                "model=tiny ships with graftlab. A folder is model=hf model.path=DIR, a hub id "
                "model=hf model.hub=ID, a GGUF file model=gguf model.path=FILE.gguf."
            )

    @property
    def name(self) -> str:
        return "tiny"

    @property
    def on_disk(self) -> bool:
        return True

    def folder(self) -> Path:
        return ASSET
