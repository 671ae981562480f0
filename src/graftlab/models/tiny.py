"""The embedded base: a few million parameters, pretrained by this repository on its own text."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.models.hf import HFModel


@dataclass(kw_only=True, slots=True)
class TinyModel(HFModel):
    """`model=tiny`: needs no path, no network and no GPU."""
