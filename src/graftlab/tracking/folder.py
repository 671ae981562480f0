"""The run folder: what lies where, whose run it is, and whether it is finished.

RUN/
  .graftlab              marks the folder as ours; .graftlab.lock is there while somebody works
  run.yaml               the resolved configuration (no secrets)
  adapter/               the best adapter, in PEFT's format, with run.yaml, card.md, tokenizer
  adapter-final/         the adapter as the last step left it
  checkpoints/           what `resume=auto` goes on from
  train_log.csv .json    one row per logged step
  samples.md             replies of base and adapter to held-out prompts
  time_metrics.json      setup, train and total seconds, steps/s, tokens/s
  checksums.json         of the files above, and of result.json
  result.json            written last: its presence means the run is finished
  traceback.txt          of an error in a plug-in, if one ended the run
  train.log              all that was said on the terminal, the progress bar excepted
  rejects.jsonl          rows of the data that were refused, with the reason (if any)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from graftlab.console import say
from graftlab.errors import ResumeError
from graftlab.files.building import recover
from graftlab.files.checksums import (
    DamagedError,
    check_head,
    checksum_of,
    with_head,
    write_checksums,
)
from graftlab.files.locks import hold
from graftlab.files.ownership import LOCK, MARK, kind_of, mark, take, unwritable
from graftlab.files.paths import absolute, relocated
from graftlab.files.reading import UnreadableError, read_json, read_yaml
from graftlab.files.writing import clear_leftovers, write_atomic
from graftlab.tracking.identity import differences, identity
from graftlab.tracking.result import Result

RESULT = "result.json"
RUN = "run"
"""What a run folder is marked as."""
_HELD: set[Path] = set()
"""Run folders that this process holds."""

LOG = "train.log"
"""In the run folder; Hydra's own logging writes there, too (conf/train.yaml)."""

STARTED = frozenset({MARK, LOCK, LOG, ".hydra", "run.yaml", "checkpoints"})
"""What lies in a run folder before anything is computed."""

SUMMED = ("train_log.csv", "train_log.json", "samples.md", "time_metrics.json")
"""What `checksums.json` is of; run.yaml and checkpoints have checksums of their own."""


def _told(folder: Path, lines: Sequence[str]) -> str:
    """What people are told who resume a run as another one."""
    more = [f"... and {len(lines) - 12} more"] if len(lines) > 12 else []
    saved = sorted(folder.glob("checkpoints/step-*.ckpt"))
    adapter = folder if (folder / "adapter").is_dir() or not saved else saved[-1]
    return "\n".join(
        [
            f"{folder} is a run of another configuration. Its values -> those given now:",
            *(f"  {line}" for line in [*lines[:12], *more]),
            "A run is finished as it was begun: take the same values, or train on from it as a new "
            f"run, with lora.from={adapter} in place of resume.",
        ]
    )


def read_config(file: Path) -> dict[str, Any]:
    """A `run.yaml` as it was dumped. Raises OSError, or ValueError where it is none."""
    check_head(file)
    config = read_yaml(file)
    if not isinstance(config, dict):
        raise UnreadableError(f"{file} holds no keys")
    return config


@dataclass(frozen=True, slots=True)
class Found:
    """A run folder of a given identity."""

    path: Path
    finished: bool


def is_longer(limit: float | None, ended_by: float | None) -> bool:
    """Whether a run that ended by a limit in minutes (None: by none) has more time now."""
    return ended_by is not None and (limit is None or limit > ended_by)


def time_limit(folder: Path) -> float | None:
    """The `max_minutes` that ended the run here; None where it did not end so, or not at all."""
    try:
        result = read_json(folder / RESULT)
    except (OSError, UnreadableError):
        return None
    limit = result.get("out_of_minutes") if isinstance(result, dict) else None
    return float(limit) if isinstance(limit, int | float) else None


def find_run(root: Path, wanted: str) -> Found | None:
    """The newest unfinished run of this identity below `root`, else the newest finished one."""
    return find_runs(root).get(wanted)


def find_runs(root: Path) -> dict[str, Found]:
    """Identity -> the run that `find_run` finds for it; every `run.yaml` is read once."""
    best: dict[str, tuple[bool, float]] = {}
    found: dict[str, Found] = {}
    for file in root.rglob("run.yaml"):
        folder = file.parent
        if folder.name == "adapter" or folder.name == "adapter-final":
            continue
        try:
            own = identity(relocated(read_config(file), folder))
        except DamagedError as error:
            say(f"! {error}: resume=auto passes over it; resume={folder} goes on with that run.")
            continue
        except (OSError, ValueError, TypeError) as error:  # keys of several types have no order
            reason = str(error).removeprefix(f"{file} ")
            say(f"left out, as it cannot be read: {file} ({reason})")
            continue
        finished = (folder / RESULT).exists() and time_limit(folder) is None
        rank = not finished, file.stat().st_mtime
        if own not in best or rank > best[own]:
            best[own], found[own] = rank, Found(folder, finished)
    return found


def adopt(folder: Path) -> None:
    """Mark a run that lost its mark, such as a copy without hidden files; to be called only where
    people have named it as a run. What is none stays as it is.
    """
    begun = any(folder.glob("checkpoints/step-*.ckpt")) or (folder / RESULT).is_file()
    if kind_of(folder) == RUN or not begun:
        return
    try:
        config = read_config(folder / "run.yaml")
    except (OSError, ValueError):
        return
    if config.keys() >= {"model", "data", "objective", "lora", "run_dir"}:
        try:
            mark(folder, RUN)
        except OSError as error:
            raise unwritable(f"resume={folder}", error) from error


class RunFolder:
    """Paths of one run, and its beginning and end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def finished(self) -> bool:
        """Whether it has its result; one that was out of time can go on all the same."""
        return (self.path / RESULT).exists()

    def goes_on(self, max_minutes: float | None) -> bool:
        """Whether it is finished only for want of time, and has more now."""
        return self.finished and is_longer(max_minutes, time_limit(self.path))

    def reopen(self) -> None:
        """What was finished for want of time is not finished any more."""
        (self.path / RESULT).unlink(missing_ok=True)

    @property
    def traceback(self) -> Path:
        """Of a plug-in's error that ended the last start."""
        return self.path / "traceback.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def final(self) -> Path:
        return self.path / "adapter-final"

    def take(self) -> None:
        """Create and mark the folder. Raises ConfigError where it is not ours, or cannot be."""
        take(self.path, RUN, key="hydra.run.dir")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else's while the block runs; a block inside it holds nothing again.

        Raises BusyError naming who works there, and ConfigError where the folder is not ours.
        """
        self.take()
        place = self.path.resolve()
        if place in _HELD:
            yield
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(hold(place / LOCK, what=str(self.path), tell=say))
            except OSError as error:
                raise unwritable(f"hydra.run.dir={self.path}", error) from error
            _HELD.add(place)
            stack.callback(_HELD.discard, place)
            yield

    def begin(self, config: dict[str, Any]) -> None:
        """Create the folder and write `run.yaml`, unless a run with checkpoints is resumed."""
        self.take()
        try:
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(f"hydra.run.dir={self.path}", error) from error
        clear_leftovers(self.path)
        self.traceback.unlink(missing_ok=True)
        for folder in (self.adapter, self.final):
            recover(folder)
        if not any(self.checkpoints.glob("*.ckpt")):
            self.write_config(config)

    def withdraw(self, made: Sequence[Path]) -> None:
        """Remove what a start has left that was refused, and the folders it `made`, this first.

        A folder that was there before stays, and one that holds anything that was computed, or
        rows that were refused.
        """
        if self.path not in made or any(self.checkpoints.glob("*")):
            return
        if {entry.name for entry in self.path.iterdir()} <= STARTED:
            with suppress(OSError):
                shutil.rmtree(self.path)
                for folder in made[1:]:
                    folder.rmdir()

    def write_config(self, config: dict[str, Any]) -> None:
        """Write `run.yaml`; `config` is `registry.dump(spec)`."""
        text = yaml.safe_dump(absolute(config), sort_keys=False, allow_unicode=True)
        write_atomic(self.path / "run.yaml", with_head(text))

    def mend_config(self, config: dict[str, Any]) -> None:
        """Write a `run.yaml` anew that is damaged; the run is known to be this configuration's."""
        try:
            self.config()
        except (OSError, ValueError) as error:
            say(f"! {error}: written anew, from the run's last checkpoint.")
            self.write_config(config)

    def write_checksums(self, result: Result) -> None:
        """`checksums.json` of what a finished run's folder is read for; `result.json` is next."""
        written = checksum_of(result.text().encode())
        write_checksums(self.path, SUMMED, more={RESULT: written})

    def config(self) -> dict[str, Any]:
        """The configuration of the run that lies here. Raises OSError or DamagedError."""
        try:
            return relocated(read_config(self.path / "run.yaml"), self.path)
        except UnreadableError as error:
            raise DamagedError(str(error)) from error

    def require_same(self, config: dict[str, Any], *, begun: dict[str, Any] | None = None) -> None:
        """Raise ResumeError naming every key in which the run here is another than `config`.

        `begun` is what a checkpoint says it was begun as, for where `run.yaml` is damaged.
        """
        try:
            own = self.config()
        except (OSError, ValueError):
            if begun is None:
                raise
            own = begun
        if identity(own) != identity(config):
            raise ResumeError(_told(self.path, differences(own, config)))
