"""Experiment loggers: W&B and TensorBoard, in any combination, beside the run's own CSV."""

from __future__ import annotations

import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, require_choice
from graftlab.tracking.folder import write_atomic

Metrics = dict[str, float]

WAIT_SECONDS = 30
"""How long a resumed run waits for W&B's service of the killed one to end."""


@dataclass(kw_only=True, slots=True)
class WandbLogs:
    """Weights & Biases; offline when there is no key, and never a prompt."""

    project: str = "graftlab"
    """W&B project."""
    entity: str | None = None
    """W&B team or user; null for the account's default."""
    group: str | None = None
    """Run group; null puts the jobs of one multirun into one group."""
    tags: list[str] = field(default_factory=list)
    """Run tags."""
    mode: str = "auto"
    """auto (online with a key, else offline), online, offline or disabled."""

    def __post_init__(self) -> None:
        require_choice("logger.wandb.mode", self.mode, ("auto", "online", "offline", "disabled"))


@dataclass(kw_only=True, slots=True)
class TensorBoardLogs:
    """TensorBoard event files in `tensorboard/` of the run folder."""


@dataclass(kw_only=True, slots=True)
class Loggers:
    """`logger=csv|wandb|tensorboard`, or several: `logger=[wandb,tensorboard]`.

    `train_log.csv` is always written: it is the run's own memory and what resuming reads.
    """

    wandb: WandbLogs | None = None
    """Log to Weights & Biases."""
    tensorboard: TensorBoardLogs | None = None
    """Log to TensorBoard."""

    def open(
        self, folder: Path, *, name: str, config: dict[str, Any], history: Sequence[Metrics]
    ) -> list[Tracker]:
        """Start the configured loggers; `history` holds the rows a resumed run already has."""
        trackers: list[Tracker] = []
        if self.wandb is not None:
            trackers.append(WandbTracker(self.wandb, folder, name=name, config=config))
        if self.tensorboard is not None:
            done = int(history[-1]["step"]) if history else -1
            trackers.append(TensorBoardTracker(folder / "tensorboard", first_step=done + 1))
        for tracker in trackers:
            for row in history if tracker.replays else ():
                tracker.log(row)
        return trackers


class Tracker(ABC):
    """Where rows and samples go besides the run folder."""

    replays = False
    """Whether a resumed run sends the rows before its checkpoint again."""
    where = ""
    """What people are told about where to look."""

    @abstractmethod
    def log(self, row: Metrics) -> None:
        """One row of the history, at `row["step"]`."""

    @abstractmethod
    def samples(self, rows: Sequence[dict[str, Any]]) -> None:
        """Sampled replies: dictionaries with step, prompt, base, adapter and reference."""

    @abstractmethod
    def finish(self, exit_code: int) -> None:
        """Flush and close; called however the run ended."""


class WandbTracker(Tracker):
    """One W&B run, the same one when the folder is resumed."""

    def __init__(self, spec: WandbLogs, folder: Path, *, name: str, config: dict[str, Any]) -> None:
        import wandb

        mode: Any = spec.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if wandb_key() else "offline")
        elif mode == "online" and not wandb_key():
            raise ConfigError(
                "logger.wandb.mode=online, but there is no key: run `wandb login`, set "
                "WANDB_API_KEY, or use logger.wandb.mode=auto."
            )
        identifier = folder / "wandb_id.txt"
        new = not identifier.exists()
        if new:
            write_atomic(identifier, secrets.token_hex(4))
        self.run = _when_free(
            wandb.init,
            project=spec.project,
            entity=spec.entity,
            group=spec.group,
            tags=spec.tags,
            name=name,
            id=identifier.read_text(encoding="utf-8"),
            dir=folder,
            config=flat(config),
            mode=mode,
            resume="allow" if mode == "online" else None,
            # A run of its own, also while other runs of this process are open.
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )
        # An offline run cannot ask the server what it has, and a killed one may have lost its
        # last rows: a resumed run therefore writes all of them again. And a run that goes on from
        # another's checkpoint is new to W&B, while its history is not.
        self.replays = new or mode == "offline"
        if mode == "offline":
            self.where = f"W&B (offline): wandb sync {folder / 'wandb'}/offline-run-*"
        elif mode == "online":
            self.where = f"W&B: {self.run.url}"

    def log(self, row: Metrics) -> None:
        self.run.log({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))

    def samples(self, rows: Sequence[dict[str, Any]]) -> None:
        import wandb

        columns = ["step", "prompt", "base", "adapter", "reference"]
        table = wandb.Table(columns=columns, data=[[row[c] for c in columns] for row in rows])
        self.run.log({"samples": table}, step=self.run.step)

    def finish(self, exit_code: int) -> None:
        self.run.finish(exit_code=exit_code)


class TensorBoardTracker(Tracker):
    """Scalars and sample texts as TensorBoard events."""

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        """What an earlier start wrote at `first_step` and later is purged."""
        from torch.utils.tensorboard import SummaryWriter

        self.replays = not folder.exists()  # as above, and then there is nothing to purge
        purge = None if self.replays else first_step or None
        self.writer: Any = SummaryWriter(str(folder), purge_step=purge)
        self.where = f"TensorBoard: tensorboard --logdir {folder}"

    def log(self, row: Metrics) -> None:
        for key, value in row.items():
            if key != "step":
                self.writer.add_scalar(key, value, int(row["step"]))

    def samples(self, rows: Sequence[dict[str, Any]]) -> None:
        for index, row in enumerate(rows):
            text = f"**{row['prompt']}**\n\nbase: {row['base']}\n\nadapter: {row['adapter']}"
            self.writer.add_text(f"sample/{index}", text, int(row["step"]))

    def finish(self, exit_code: int) -> None:
        self.writer.close()


def _when_free(init: Callable[..., Any], **arguments: Any) -> Any:
    """`wandb.init`, waiting for a killed run's service to let go of the run's id."""
    for attempt in range(WAIT_SECONDS):
        try:
            return init(**arguments)
        except Exception as error:  # of a class that differs between versions of wandb
            if "is in use" not in str(error) or attempt == WAIT_SECONDS - 1:
                raise
            time.sleep(1)
    raise AssertionError("unreachable: the last attempt raises or returns")


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration as dotted keys: what W&B's run table can filter and sort."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def wandb_key() -> bool:
    """Whether W&B could log in without asking: a key in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(path).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
