"""Checkpoints: adapter, optimizer and progress only; atomic, synced, refused if foreign.

    checkpoints/step-000120-valid-1.234567.ckpt      validated at this step
    checkpoints/step-000120-valid-1.2-more-45.0.ckpt ranked by a measure of which more is better
    checkpoints/step-000150.ckpt                     saved between two validations
    checkpoints/step-000150.ckpt.xxh3                its checksum, there before it is
    checkpoints/step-000180.ckpt.damaged             one that was not as it was written

The names are the index: nothing else has to be kept in step with the files.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from graftlab.errors import ConfigError, require_range
from graftlab.files.checksums import (
    SUFFIX,
    DamagedError,
    check_file,
    is_whole,
    publish_checked,
    remove,
)
from graftlab.tracking.history import Row
from graftlab.tracking.ranking import LESS, LOSS, MORE, Ranking

_NEEDED = ("adapter", "adapter_config", "callbacks", "global_step", "identity", "objective", "run")
PATTERN = re.compile(rf"step-(\d+)(?:-valid-([\d.]+))?(?:-({MORE}|{LESS})-(-?[\d.]+))?\.ckpt")


@dataclass(kw_only=True, slots=True)
class Checkpointing:
    """The `checkpoint` node: when to save and what to keep."""

    every_epochs: int | None = 1
    """Save after every N epochs; the end of the run is always saved."""
    every_steps: int | None = None
    """Also save after every N optimizer steps."""
    keep: Any = 2
    """How many of the best to keep besides the last; `all` keeps every one."""
    by: str = LOSS
    """What makes one the best: loss (of validation), or a measure of `callbacks=[...,evaluate]`
    such as exact-match/pct_exact; its metric's name does where it has one measure to go by."""

    def __post_init__(self) -> None:
        require_range("checkpoint.every_epochs", self.every_epochs, least=1)
        require_range("checkpoint.every_steps", self.every_steps, least=1)
        number = isinstance(self.keep, int) and not isinstance(self.keep, bool) and self.keep >= 1
        if self.keep != "all" and not number:
            raise ConfigError(
                f"checkpoint.keep={self.keep} must be a number of at least 1, or all."
            )


@dataclass(frozen=True, slots=True)
class Saved:
    """One checkpoint file."""

    step: int
    valid_loss: float | None
    path: Path
    measured: float | None = None
    """What the run ranks by where that is not the loss, as a number of which less is better."""

    @property
    def counts(self) -> bool:
        """Whether there is anything to rank it by."""
        return self.valid_loss is not None or self.measured is not None

    def load(self, *, mapped: bool = False) -> dict[str, Any]:
        """The content, tensors on the CPU; nothing but tensors and plain data is unpickled.

        Raises DamagedError, naming the file, where it is not what this run has written.
        """
        import torch

        check_file(self.path)
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # a torn file fails in pickle, zip or torch's own ways
            raise DamagedError(f"{self.path} is cut off, or no checkpoint") from error
        if not isinstance(content, dict) or not content.keys() >= set(_NEEDED):
            raise DamagedError(f"{self.path} is no checkpoint of graftlab")
        if content["global_step"] != self.step:
            raise DamagedError(f"{self.path} holds step {content['global_step']}")
        return content


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint where `path` says, and nowhere else first.

    Raises OSError, of which torch would say no more than that writing failed; nothing is left then.
    """
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        disk: Any = _Disk(file)
        try:
            torch.save(content, disk)
            file.flush()
        except BaseException:
            path.unlink(missing_ok=True)  # what little room there is, the next one needs
            if (problem := disk.problem) is not None:
                raise OSError(problem.errno, problem.strerror, str(path)) from problem
            raise


class _Disk:
    """A file to write to, which remembers what the disk said."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.problem: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.problem = self.problem or error
            raise

    def flush(self) -> None:
        """The file is flushed when all of it was written."""


class CheckpointStore:
    """The checkpoint files of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def saved(self) -> list[Saved]:
        """All whole checkpoints, oldest first."""
        found = []
        for path in self.folder.glob("step-*.ckpt"):
            if match := PATTERN.fullmatch(path.name):
                loss = float(match[2]) if match[2] else None
                value = Ranking("", match[3]).key(float(match[4])) if match[3] else None
                found.append(Saved(int(match[1]), loss, path, value))
        return sorted(found, key=lambda saved: (saved.step, saved.path.name))

    def last(self) -> Saved | None:
        """The newest checkpoint: where a resumed run goes on."""
        saved = self.saved()
        return saved[-1] if saved else None

    def best(self) -> Saved | None:
        """The best (the earliest of equals); the last if none was validated or measured."""
        ranked = self.ranked()
        return ranked[0] if ranked else None

    def ranked(self) -> list[Saved]:
        """The best first: by the run's measure, then those without it by validation loss, and
        behind those by time, the last first.
        """
        saved = self.saved()
        measured = [one for one in saved if one.measured is not None]
        validated = [one for one in saved if one.measured is None and one.valid_loss is not None]
        others = [one for one in saved if not one.counts]
        return [
            *sorted(measured, key=lambda s: (s.measured, s.step)),
            *sorted(validated, key=lambda s: (s.valid_loss, s.step)),
            *reversed(others),
        ]

    def good(self) -> str:
        """A sentence for people: the newest checkpoint that was read back and found finite."""
        from graftlab.models.finite import describe_nonfinite

        for saved in reversed(self.saved()):
            try:
                adapter = saved.load()["adapter"]
            except Exception as error:  # damaged in one of many ways: the one before it, then
                logging.getLogger(__name__).debug("%s: %s", saved.path, error)
                continue
            if describe_nonfinite(adapter.items()) is None:
                return f"The checkpoint of step {saved.step} was checked and is good: {saved.path}"
        return "There is no good checkpoint from before it."

    def path(self, step: int, row: Row, ranking: Ranking) -> Path:
        """Where the checkpoint of a step lies, given what its row tells to rank it by."""
        loss, value = row.get("valid_loss"), row.get(ranking.column)
        suffix = "" if loss is None else f"-valid-{loss:.6f}"
        if value is not None and not ranking.is_loss:
            suffix += f"-{ranking.better}-{value:.6f}"
        return self.folder / f"step-{step:06d}{suffix}.ckpt"

    def partial(self, path: Path) -> Path:
        """Where a checkpoint is written before it is whole."""
        return path.with_name(f".{path.name}.partial")

    def publish(self, path: Path) -> None:
        """Make a completely written partial file durable under its name, its checksum first."""
        publish_checked(self.partial(path), path)

    def prune(self, keep: Any, *, ends: bool = False) -> None:
        """Remove what a crash left half written, and all but the best `keep` and the last.

        Until the run `ends`, there is always one to fall back on: where only the last would stay,
        the one before it does too. Where the last is damaged, so does the newest that is not.
        """
        for partial in self.folder.glob(".*.partial"):
            partial.unlink()
        for sum_file in self.folder.glob(f"step-*.ckpt{SUFFIX}"):
            if not sum_file.with_suffix("").exists():  # killed between the two
                sum_file.unlink()
        if keep == "all":
            return
        saved = self.saved()
        ranked = [one for one in self.ranked() if one.counts]
        kept = {one.path for one in [*ranked[:keep], *saved[-1:]]}
        if len(kept) == 1 and not ends:
            kept |= {one.path for one in saved[-2:]}
        if any(one.path not in kept for one in saved):
            kept |= {one.path for one in [self.newest_checked()] if one is not None}
        for one in saved:
            if one.path not in kept:
                remove(one.path)

    def newest_checked(self) -> Saved | None:
        """The newest checkpoint that has been checked and is as it was written."""
        return next((saved for saved in reversed(self.saved()) if is_whole(saved.path)), None)
