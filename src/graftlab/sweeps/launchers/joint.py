"""`launcher=joint`: worker processes that each train several adapters on one base."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graftlab.errors import require_range
from graftlab.registry import choice
from graftlab.sweeps.launchers.base import Launcher, LaunchRequest, Workers
from graftlab.sweeps.pool import Pool
from graftlab.sweeps.slots import Slot


@choice("joint")
@dataclass(kw_only=True, slots=True)
class JointLauncher(Launcher):
    """`launcher=joint`: adapters that share a base and rows are trained together on it.

    Each slot holds a base of its own; `launcher.slots=1` trains all on one.
    """

    most: int = 16
    """Adapters that train together at once."""

    def __post_init__(self) -> None:
        Launcher.__post_init__(self)
        require_range("launcher.most", self.most, least=1)

    def at_once(self, work: LaunchRequest, slots: int) -> int:
        """How many adapters one of so many workers takes, so that all have work."""
        return min(self.most, math.ceil(work.jobs / slots))

    def workers(self, work: LaunchRequest, slots: list[Slot], launch: str) -> Workers:
        together = ("--joint", str(self.at_once(work, len(slots))))
        return Pool(work.ledger, launch, slots, work.retries, extra=together)
