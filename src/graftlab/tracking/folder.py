"""The run folder: what lies where, whose run it is, and whether it is finished.

RUN/
  run.yaml               the resolved configuration (no secrets)
  adapter/               the best adapter, in PEFT's format, with run.yaml, card.md, tokenizer
  adapter-final/         the adapter as the last step left it
  checkpoints/           what `resume=auto` goes on from
  train_log.csv .json    one row per logged step
  samples.md             replies of base and adapter to held-out prompts
  time_metrics.json      setup, train and total seconds, steps/s, tokens/s
  checksums.json         of the files above, and of result.json
  result.json            written last: its presence means the run is finished
  rejects.jsonl          rows of the data that were refused, with the reason (if any)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from graftlab.files.checksums import (
    DamagedError,
    check_head,
    checksum_of,
    with_head,
    write_checksums,
)
from graftlab.files.reading import UnreadableError, read_yaml
from graftlab.files.writing import partial_path, publish, sync_files, write_atomic
from graftlab.tracking.console import say

if TYPE_CHECKING:
    from graftlab.tracking.result import Result

BUDGETS = (
    *("run_dir", "resume", "logger", "max_minutes", "name"),
    *("budget", "device", "sweep", "launcher"),
)
"""Keys that do not change what a run computes, and so are not part of its identity."""

SUMMED = ("train_log.csv", "train_log.json", "samples.md", "time_metrics.json")
"""What `checksums.json` is of; run.yaml and checkpoints have checksums of their own."""


def identity(config: dict[str, Any]) -> str:
    """Hash of what decides a run's result; `config` is `choices.dump(spec)`."""
    decisive = {key: value for key, value in config.items() if key not in BUDGETS}
    canonical = json.dumps(decisive, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


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
            config = read_config(file)
        except (OSError, ValueError) as error:
            say(f"! {error}: resume=auto passes over it; resume={folder} goes on with that run.")
            continue
        own, finished = identity(config), (folder / "result.json").exists()
        rank = not finished, file.stat().st_mtime
        if own not in best or rank > best[own]:
            best[own], found[own] = rank, Found(folder, finished)
    return found


class RunFolder:
    """Paths of one run, and its beginning and end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def final(self) -> Path:
        return self.path / "adapter-final"

    def begin(self, config: dict[str, Any]) -> None:
        """Create the folder and write `run.yaml`, unless a run with checkpoints is resumed."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        if not any(self.checkpoints.glob("*.ckpt")):
            self.write_config(config)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write `run.yaml`; `config` is `choices.dump(spec)`."""
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
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
        write_checksums(self.path, SUMMED, more={"result.json": written})

    def config(self) -> dict[str, Any]:
        """The configuration of the run that lies here. Raises OSError or DamagedError."""
        try:
            return read_config(self.path / "run.yaml")
        except UnreadableError as error:
            raise DamagedError(str(error)) from error

    def identity(self) -> str:
        """The identity of the run that lies here."""
        return identity(self.config())

    @contextmanager
    def building(self, target: Path) -> Iterator[Path]:
        """A folder to fill that appears at `target` whole or not at all."""
        temporary = partial_path(target)
        temporary.mkdir(parents=True)
        yield temporary
        sync_files(temporary)
        if target.exists():
            shutil.rmtree(target)
        publish(temporary, target)
