"""`launcher=auto`: joint or local, by what measures faster."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.registry import choice
from graftlab.sweeps.launchers.local import LocalLauncher


@choice("auto")
@dataclass(kw_only=True, slots=True)
class AutoLauncher(LocalLauncher):
    """`launcher=auto`: joint where jobs can share a base and that measures faster, else local."""
