"""Experiment loggers: W&B and TensorBoard, in any combination, beside the run's own CSV."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_choice
from graftlab.files.checksums import DamagedError, check_file, write_checked
from graftlab.tracking.console import say
from graftlab.tracking.tensorboard import TensorBoardTracker
from graftlab.tracking.tracker import Metrics, Tracker, final, flat

if TYPE_CHECKING:
    from graftlab.tracking.result import Result

LONGEST_TAG, LONGEST_NAME = 64, 128
"""Letters that W&B takes."""
PRUNED = "pruned"
"""Tag, and key of the summary, of a run that its sweep has set aside."""
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
    job_type: str | None = None
    """Kind of run; null: train, or sweep for the jobs of one."""
    tags: list[str] = field(default_factory=list)
    """Run tags; the jobs of a sweep also have its name, and `pruned` where it applies."""
    artifacts: bool = False
    """Also log the best adapter as an artifact, 2 to 200 MB a run."""
    mode: str = "auto"
    """auto (online with a key, else offline), online, offline or disabled."""

    def __post_init__(self) -> None:
        require_choice("logger.wandb.mode", self.mode, ("auto", "online", "offline", "disabled"))
        for tag in self.tags:
            if not 1 <= len(tag) <= LONGEST_TAG:
                raise ConfigError(
                    f"logger.wandb.tags: W&B takes tags of 1 to {LONGEST_TAG} letters, not {tag!r}."
                )

    def join(self, sweep: str) -> None:
        """Be one of the jobs of `sweep`, but for what was chosen otherwise."""
        self.group = self.group or sweep
        self.job_type = self.job_type or "sweep"
        self.tags = [*dict.fromkeys([*self.tags, sweep[:LONGEST_TAG]])]


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
            trackers.append(
                TensorBoardTracker(folder / "tensorboard", first_step=done + 1, config=config)
            )
        for tracker in trackers:
            for row in history if tracker.replays else ():
                tracker.log(row)
        return trackers


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
        new = not _is_whole(identifier)
        if new:
            write_checked(identifier, secrets.token_hex(4))
        # A run that W&B's own agent has started has its id from there.
        served = "WANDB_SWEEP_ID" in os.environ
        self.run = _when_free(
            wandb.init,
            project=spec.project,
            entity=spec.entity,
            group=spec.group,
            job_type=spec.job_type or "train",
            tags=spec.tags,
            name=name[:LONGEST_NAME],
            id=None if served else identifier.read_text(encoding="utf-8"),
            dir=folder,
            config=flat(config),
            mode=mode,
            resume="allow" if mode == "online" else None,
            # A run of its own, also while other runs of this process are open.
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )
        if served:
            write_checked(identifier, self.run.id)
        if not new:
            self.run.summary[PRUNED] = False  # it may have been, and was let go on
        self.artifacts = spec.artifacts
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

    def paused(self) -> None:
        self.run.summary[PRUNED] = True
        self.run.tags = (*self.run.tags, PRUNED)

    def conclude(self, result: Result) -> None:
        self.run.summary.update(final(result) | {PRUNED: False, "stopped": result.stopped})
        if not self.artifacts:
            return
        import wandb

        artifact = wandb.Artifact(f"adapter-{self.run.id}", "adapter", metadata=final(result))
        for file in sorted(Path(result.adapter).iterdir()):
            artifact.add_file(str(file), policy="immutable")  # nobody writes there any more
        self.run.log_artifact(artifact, aliases=["best"])

    def finish(self, exit_code: int) -> None:
        self.run.finish(exit_code=exit_code)


def _is_whole(identifier: Path) -> bool:
    """Whether the id of an earlier start is there, as it was written."""
    try:
        return identifier.exists() and (check_file(identifier) or True)
    except DamagedError as error:
        say(f"! {error}: W&B shows this run as a new one from here on.")
        return False


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
