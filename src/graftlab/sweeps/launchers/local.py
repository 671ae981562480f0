"""`launcher=local`: worker processes on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.registry import choice
from graftlab.sweeps.launchers.base import Launcher, LaunchRequest, Workers
from graftlab.sweeps.pool import Pool
from graftlab.sweeps.slots import Slot


@choice("local")
@dataclass(kw_only=True, slots=True)
class LocalLauncher(Launcher):
    """`launcher=local`: worker processes on this machine, each with its own loaded base."""

    def workers(self, work: LaunchRequest, slots: list[Slot], launch: str) -> Workers:
        return Pool(work.ledger, launch, slots, work.retries)
