"""`logger=tensorboard`: a run's scalars, sampled texts and hyperparameters as event files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.registry import choice
from graftlab.tracking.identity import BUDGETS, flatten
from graftlab.tracking.loggers import LoggerSpec
from graftlab.tracking.result import Result
from graftlab.tracking.tracker import Metrics, Tracker, final


@choice("tensorboard")
@dataclass(kw_only=True, slots=True)
class TensorBoardLogs(LoggerSpec):
    """TensorBoard event files in `tensorboard/` of the run folder."""

    def open(
        self, folder: Path, *, name: str, config: dict[str, Any], history: Sequence[Metrics]
    ) -> Tracker:
        done = int(history[-1]["step"]) if history else -1
        return TensorBoardTracker(folder / "tensorboard", first_step=done + 1, config=config)


class TensorBoardTracker(Tracker):
    """Scalars, sample texts and hyperparameters as TensorBoard events.

    Each run tells its own hyperparameters, and no list of those there are: TensorBoard gathers them
    from all runs below the folder it is given, a sweep's for instance.
    """

    def __init__(self, folder: Path, *, first_step: int = 0, config: Mapping[str, Any]) -> None:
        """What an earlier start wrote at `first_step` and later is purged."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        # A run that goes on from another's checkpoint is new here, while its history is not.
        self.replays = not folder.exists()
        purge = None if self.replays else first_step or None
        self.writer: Any = SummaryWriter(str(folder), purge_step=purge)
        _, begins, self._ends = hparams(  # type: ignore[no-untyped-call]
            _hyperparameters(config), {}
        )
        self._add(begins)
        self.where = f"TensorBoard: tensorboard --logdir {folder}"

    def log(self, row: Metrics) -> None:
        for key, value in row.items():
            if key != "step":
                self.writer.add_scalar(key, value, int(row["step"]))

    def samples(self, rows: Sequence[dict[str, Any]]) -> None:
        for index, row in enumerate(rows):
            text = f"**{row['prompt']}**\n\nbase: {row['base']}\n\nadapter: {row['adapter']}"
            self.writer.add_text(f"sample/{index}", text, int(row["step"]))

    def paused(self) -> None:
        """Its hyperparameters stay, with the metrics that it has reached."""

    def conclude(self, result: Result) -> None:
        for key, value in final(result).items():
            if value is not None:
                self.writer.add_scalar(key, value, result.steps)
        self._add(self._ends)

    def finish(self, exit_code: int) -> None:
        self.writer.close()

    def _add(self, summary: Any) -> None:
        self.writer.file_writer.add_summary(summary)


def _hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's result, as values that TensorBoard can show."""
    decisive = flatten({key: value for key, value in config.items() if key not in BUDGETS})
    plain = (bool, int, float, str)
    return {key: v if isinstance(v, plain) else str(v) for key, v in decisive.items()}
