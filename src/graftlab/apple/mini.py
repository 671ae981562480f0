"""`model=afm-mini`, the miniature of Apple's model: pretrained once by tools/, and shipped."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from graftlab.apple.model import AFMModel
from graftlab.errors import ConfigError, ModelError
from graftlab.registry import choice

ASSET = Path(__file__).parent / "assets"


@choice("afm-mini")
@dataclass(kw_only=True, slots=True)
class AFMMini(AFMModel):
    """`model=afm-mini`: Apple's architecture in two million parameters; needs no assets."""

    def __post_init__(self) -> None:
        AFMModel.__post_init__(self)
        if self.path:
            raise ConfigError("model=afm-mini ships with graftlab; model=afm-3b takes model.path.")

    @property
    def name(self) -> str:
        return "afm-mini"

    @property
    def on_disk(self) -> bool:
        return True

    def check(self) -> None:
        if find_spec("tamm") is None:
            raise ModelError("model=afm-mini needs tamm: pip install 'graftlab[apple]'.")
        AFMModel.check(self)

    def folder(self) -> Path:
        return ASSET
