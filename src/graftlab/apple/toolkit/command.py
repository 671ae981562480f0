"""One word of the toolkit: the verb it is here, its flags, and what depends on several of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graftlab.apple.toolkit.flags import Flag, Values
from graftlab.apple.toolkit.more import MODELS, Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One script of the toolkit."""

    name: str
    verb: str
    meaning: str
    fixed: tuple[str, ...] = ()
    """Words that are always said."""
    flags: tuple[Flag, ...]
    more: tuple[Callable[[Values, Said], list[str]], ...]
    """Words that depend on several flags, or on what lies on the disk; they come first."""


MODEL_FLAGS = (
    Flag(
        name="assets",
        meaning="the toolkit's assets folder; else $GRAFTLAB_AFM_ASSETS, or ./assets",
        keys="model.path",
    ),
    Flag(
        name="model",
        meaning=f"{' or '.join(MODELS)}, a miniature to try all this on; {MODELS[0]} if left out",
        keys="model",
    ),
)
