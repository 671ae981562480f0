"""Checkpoints as Apple's toolkit writes them while it trains, the best of them kept.

checkpoints/adapter-epoch1.pt, adapter-epoch3.pt    the best by validation loss
checkpoints/adapter-final.pt                        the end of the run, whatever its loss
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graftlab.adapters.base import Adapter, CheckpointWriter
from graftlab.apple.checkpoints import SUFFIX, write
from graftlab.files.checksums import remove


@dataclass(frozen=True, slots=True)
class EpochFiles(CheckpointWriter):
    """Writes `adapter` into `folder`."""

    adapter: Adapter
    folder: Path

    def after_epoch(self, epoch: int, losses: Mapping[int, float], *, keep: int | None) -> None:
        self._write(f"epoch{epoch}")
        if keep is None:
            return

        def rank(path: Path) -> tuple[float, int]:
            epoch = int(path.stem.rpartition("epoch")[2])
            return losses.get(epoch, float("inf")), -epoch

        for path in sorted(self.folder.glob(f"adapter-epoch*{SUFFIX}"), key=rank)[keep:]:
            remove(path)

    def after_run(self) -> None:
        self._write("final")

    def _write(self, name: str) -> None:
        write(self.adapter.state_dict(), self.folder / f"adapter-{name}{SUFFIX}")
