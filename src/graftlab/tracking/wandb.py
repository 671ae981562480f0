"""`logger=wandb`: one W&B run that never stops or slows the training it tells of.

online   while the server answers; what it did not get stays in wandb/ for `wandb sync`
offline  without a key, or when the server cannot be reached or refuses the key
silent   when W&B itself fails even offline: the run's own log has everything
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.console import say
from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.files.checksums import is_whole, write_checked
from graftlab.files.writing import write_atomic
from graftlab.registry import choice
from graftlab.tracking.identity import flatten
from graftlab.tracking.loggers import LoggerSpec
from graftlab.tracking.result import Result
from graftlab.tracking.tracker import Metrics, Tracker, final
from graftlab.tracking.wandb_server import check_mode, wandb_mode, when_free

LONGEST_TAG, LONGEST_NAME = 64, 128
"""Letters that W&B takes in a tag, and in the name of a project, group, kind or run."""
FORBIDDEN = "/\\#?%:"
"""Characters that W&B refuses in the name of a project."""
PRUNED = "pruned"
"""Tag, and key of the summary, of a run that its sweep has set aside."""
INIT_SECONDS = 15
"""How long a server that has just answered may take to open the run."""
UNSENT = "unsent.txt"
"""In `wandb/`: names of its folders whose run was online, but could not send everything."""


@choice("wandb")
@dataclass(kw_only=True, slots=True)
class WandbLogs(LoggerSpec):
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
    finish_timeout: float = 60.0
    """Seconds that a run waits at its end for what is not sent yet; `wandb sync` sends the rest."""

    def __post_init__(self) -> None:
        require_choice("logger.wandb.mode", self.mode, ("auto", "online", "offline", "disabled"))
        require_range("logger.wandb.finish_timeout", self.finish_timeout, above=0)
        for key in ("project", "entity", "group", "job_type"):
            name = getattr(self, key)
            if name is not None and not 1 <= len(name) <= LONGEST_NAME:
                raise ConfigError(
                    f"logger.wandb.{key}: W&B takes names of 1 to {LONGEST_NAME} letters, "
                    f"not {name!r}."
                )
        if wrong := sorted(set(self.project) & set(FORBIDDEN)):
            raise ConfigError(
                f"logger.wandb.project={self.project}: W&B takes no {' '.join(wrong)} in the name "
                "of a project."
            )
        for tag in self.tags:
            if not 1 <= len(tag) <= LONGEST_TAG:
                raise ConfigError(
                    f"logger.wandb.tags: W&B takes tags of 1 to {LONGEST_TAG} letters, not {tag!r}."
                )

    def check(self) -> None:
        check_mode(self.mode)

    def join(self, sweep: str) -> None:
        self.group = self.group or sweep
        self.job_type = self.job_type or "sweep"
        self.tags = [*dict.fromkeys([*self.tags, sweep[:LONGEST_TAG]])]

    def open(
        self, folder: Path, *, name: str, config: dict[str, Any], history: Sequence[Metrics]
    ) -> Tracker:
        return WandbTracker(self, folder, name=name, config=config)


class WandbTracker(Tracker):
    """One W&B run, the same one when the folder is resumed."""

    def __init__(self, spec: WandbLogs, folder: Path, *, name: str, config: dict[str, Any]) -> None:
        self.spec, self.folder, self.name, self.config = spec, folder, name, config
        self.run: Any = None
        self._told: list[Callable[[Any], None]] = []  # told again to a run that takes its place
        self._lost = False
        self.new = not is_whole(self._identifier, tell=_tell)
        if self.new:
            write_checked(self._identifier, secrets.token_hex(4))
        self.mode, obstacle = wandb_mode(spec.mode)
        if obstacle is not None:
            self._warn(f"{obstacle}; this run is logged offline. {self._how_to_sync()}")
        try:
            self.run = self._init()
        except Exception as error:  # of classes that differ between versions of wandb
            self._lose(error)
        if self.run is not None and not self.new:
            self.run.summary[PRUNED] = False  # it may have been, and was let go on
        # An offline run cannot ask the server what it has, and a killed one may have lost its
        # last rows: a resumed run therefore writes all of them again. And a run that goes on from
        # another's checkpoint is new to W&B, while its history is not.
        self.replays = self.new or self.mode == "offline"

    @property
    def where(self) -> str:  # type: ignore[override]
        """What people are told about where to look."""
        if self.run is None or self.mode == "disabled":
            return ""
        if self.mode == "offline":
            return f"W&B (offline): wandb sync {self.folder / 'wandb'}/offline-run-*"
        return f"W&B: {self.run.url}"

    def log(self, row: Metrics) -> None:
        metrics = {name: value for name, value in row.items() if name != "step"}
        self._tell(lambda run: run.log(metrics, step=int(row["step"])))

    def samples(self, rows: Sequence[dict[str, Any]]) -> None:
        import wandb

        columns = ["step", "prompt", "base", "adapter", "expected"]

        def send(run: Any) -> None:
            table = wandb.Table(columns=columns, data=[[row[c] for c in columns] for row in rows])
            run.log({"samples": table}, step=run.step)

        self._tell(send)

    def paused(self) -> None:
        def mark(run: Any) -> None:
            run.summary[PRUNED] = True
            run.tags = (*run.tags, PRUNED)

        self._tell(mark)

    def conclude(self, result: Result) -> None:
        ended = final(result) | {PRUNED: False, "stopped": result.stopped}
        self._tell(lambda run: run.summary.update(ended))
        if self.spec.artifacts:
            self._tell(lambda run: _log_artifact(run, result))

    def finish(self, exit_code: int) -> None:
        try:
            if self.run is not None:
                self.run.finish(exit_code=exit_code)
        except TimeoutError:
            if self.mode == "online":
                self._keep_unsent(self.run)
            self._warn(f"its server was too slow to take everything. {self._how_to_sync()}")
        except Exception as error:
            self._lose(error)
            self.finish(exit_code)
        self.run = None

    @property
    def _identifier(self) -> Path:
        """The file with the run's id."""
        return self.folder / "wandb_id.txt"

    def _init(self) -> Any:
        """`wandb.init` in the tracker's mode; raises whatever W&B raises."""
        import wandb

        spec = self.spec
        # A run that W&B's own agent has started has its id from there.
        served = "WANDB_SWEEP_ID" in os.environ
        run = when_free(
            wandb.init,
            project=spec.project,
            entity=spec.entity,
            group=spec.group,
            job_type=spec.job_type or "train",
            tags=spec.tags,
            name=self.name[:LONGEST_NAME],
            id=None if served else self._identifier.read_text(encoding="utf-8"),
            dir=self.folder,
            config=flatten(self.config),
            mode=self.mode,
            resume="allow" if self.mode == "online" else None,
            # A run of its own, also while other runs of this process are open.
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=INIT_SECONDS,
                finish_timeout=spec.finish_timeout,
                finish_timeout_raises=True,
            ),
        )
        if served:
            write_checked(self._identifier, run.id)
        return run

    def _tell(self, action: Callable[[Any], None]) -> None:
        """Do it where there is a run; when W&B fails, in the offline run that follows."""
        self._told.append(action)
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        """Go on in an offline run that is told everything again; without W&B if that fails too."""
        if self.run is not None and self.mode == "online":
            self._keep_unsent(self.run)
        elif self.mode == "online":  # W&B's service holds the id of a run that it could not open
            write_checked(self._identifier, secrets.token_hex(4))
        self.run, again, self._lost, self.mode = None, not self._lost, True, "offline"
        try:
            if again:
                self.run = self._init_anew()
                for action in self._told:
                    action(self.run)
        except Exception as second:
            self.run, error = None, second
        if self.run is not None:
            self._warn(f"{_short(error)}; this run is logged offline. {self._how_to_sync()}")
        else:
            self._warn(f"{_short(error)}; the run goes on without it (train_log.csv has all rows).")

    def _init_anew(self) -> Any:
        """`wandb.init`, with a new service where the one of this process has died."""
        import wandb

        try:
            return self._init()
        except Exception:
            with suppress(Exception):
                wandb.teardown()
            return self._init()

    def _keep_unsent(self, run: Any) -> None:
        """Note which folder `wandb sync` is to send, beside the offline ones."""
        files = self.folder / "wandb"
        notes = files / UNSENT
        known = notes.read_text(encoding="utf-8").split() if notes.is_file() else []
        own = {path.name for path in files.glob(f"run-*-{run.id}")}
        write_atomic(notes, "".join(f"{name}\n" for name in sorted({*known, *own})))

    def _how_to_sync(self) -> str:
        kind = "offline-run" if self.mode == "offline" else "run"
        return f"To send it: wandb sync {self.folder / 'wandb'}/{kind}-*"

    def _warn(self, message: str) -> None:
        say(f"! W&B: {message}")


def _log_artifact(run: Any, result: Result) -> None:
    import wandb

    artifact = wandb.Artifact(f"adapter-{run.id}", "adapter", metadata=final(result))
    for file in sorted(Path(result.adapter).iterdir()):
        artifact.add_file(str(file), policy="immutable")  # nobody writes there any more
    run.log_artifact(artifact, aliases=["best"])


def _tell(problem: str) -> None:
    say(f"! {problem}: W&B shows this run as a new one from here on.")


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
