"""Running through Hydra: one job, or one after the other, failures told by job.

A sweep of `train` has an engine of its own (`door/sweep.py`); other verbs are light enough.

Hydra makes the run folder, keeps `.hydra/` in it, and hands jobs to its launcher. Errors of a job
do not pass through it (it would shorten them); they are collected here and told by the door.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.config import compose, register
from graftlab.door.jobs import place_job
from graftlab.door.verify import Door, built, sweep_values
from graftlab.door.words import Word, quote
from graftlab.errors import ConfigError, GraftlabError, Interrupted
from graftlab.files.ownership import kind_of, unwritable
from graftlab.registry import dump
from graftlab.terminal import keep_log, printable, tell_traceback
from graftlab.tracking.console import say
from graftlab.tracking.folder import LOG, RunFolder, adopt, find_run
from graftlab.tracking.identity import identity

if TYPE_CHECKING:
    from omegaconf import DictConfig

RUNS = Path("outputs")


@dataclass(slots=True)
class Outcome:
    """What became of the jobs of one command."""

    jobs: int = 0
    failed: dict[str, Exception] = field(default_factory=dict)
    """Job, in words -> what ended it."""
    results: list[Any] = field(default_factory=list)
    """What the jobs of this process returned, in their order."""


def launch(door: Door, words: Sequence[Word], *, multirun: bool) -> Outcome:
    """Run the job, or with `multirun` every job of the sweep. Never raises what a job raised."""
    outcome, home = Outcome(), os.getpid()
    swept = {word.key for word in words if len(sweep_values(word.hydra, door.menu)) > 1}

    def job(cfg: DictConfig) -> Any:
        outcome.jobs += 1
        name = _job_name(swept) if multirun else "run"
        try:
            result = _run(door, cfg, own=_own(swept) if multirun else None)
            if result is not None:
                outcome.results.append(result)
            return result
        except Interrupted as stop:
            # Not an Exception: Hydra would go on with the sweep's next job.
            print(printable(stop), file=sys.stderr)
            raise SystemExit(stop.exit_code) from stop
        except Exception as error:
            # In another process (a parallel launcher) the exception itself must travel.
            if os.getpid() != home:
                raise
            outcome.failed[name] = error
            if multirun:
                _tell(name, error)
            return None

    flags = ["--multirun"] if multirun else []
    with _settled(door, words, multirun=multirun) as settled:
        try:
            through_hydra(door, [*flags, *door.overrides(settled)], job)
        except OSError as error:  # a job's own are in `outcome`: Hydra could not make its folders
            raise unwritable("the folder for Hydra's notes", error) from error
    return outcome


@contextmanager
def _settled(door: Door, words: Sequence[Word], *, multirun: bool) -> Iterator[Sequence[Word]]:
    """The words with the run folder in full, ours and held, before Hydra writes into it.

    Raises ConfigError where it is somebody else's or cannot be made, BusyError where it is in use.
    """
    if door.menu.verb != "train" or multirun:
        yield words
        return
    cfg = compose(door.menu.verb, door.overrides(words), conf=door.conf, hydra=True)
    folder = Path(str(cfg.hydra.run.dir)).expanduser()
    others = [word for word in words if word.key != "hydra.run.dir"]
    with RunFolder(folder).held():
        yield [*others, _folder_word("hydra.run.dir", folder)]


def through_hydra(door: Door, arguments: Sequence[str], job: Any) -> None:
    """Hydra's own entry point with these arguments; its errors come out whole."""
    import hydra

    register()
    main = hydra.main(
        version_base="1.3", config_path=str(door.conf.resolve()), config_name=door.menu.verb
    )
    with _environment([sys.argv[0], *arguments]):
        main(job)()


def resume_words(spec: Any, words: Sequence[Word]) -> list[Word]:
    """What to add so that Hydra works in the folder of the run to be finished."""
    given = any(word.key == "hydra.run.dir" for word in words)
    resume = getattr(spec, "resume", None)
    if resume is None or (given and resume == "auto"):
        return []
    if resume != "auto":
        return [_folder_word("hydra.run.dir", _existing(resume, given))]
    from graftlab.training.auto import settle_auto

    if not RUNS.is_dir():
        return []
    settle_auto(spec)
    found = find_run(RUNS, identity(dump(spec)))
    if found is None:
        return []
    adopt(found.path)
    ours = kind_of(found.path) is not None  # else nothing was begun there: it starts afresh
    return [_folder_word("hydra.run.dir", found.path)] if ours else []


def _existing(resume: str, given: bool) -> Path:
    if given:
        raise ConfigError(f"resume={resume} is the run folder: leave hydra.run.dir out.")
    folder = Path(resume).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"resume={resume}: there is no such folder. resume=auto looks for one.")
    adopt(folder)
    return folder


def _folder_word(key: str, folder: Path) -> Word:
    return Word(f"{key}={folder}", key, f"{key}={quote(str(folder))}")


def _run(door: Door, cfg: DictConfig, *, own: Sequence[str] | None) -> Any:
    """Build the spec and call the task.

    `own` are the overrides that tell a job of a sweep from the others; None for a single run.
    """
    spec = built(door, cfg, tell=say)
    if own is not None:
        place_job(spec, own)
    if door.menu.verb == "train":
        keep_log(Path(spec.run_dir) / LOG)
    return importlib.import_module(f"graftlab.tasks.{door.menu.verb}").run(spec)


def _job_name(swept: Collection[str]) -> str:
    """The current job of a sweep for people: its number and the swept values."""
    from hydra.core.hydra_config import HydraConfig

    number, own = HydraConfig.get().job.num, _own(swept)
    return f"job {number} ({' '.join(own)})" if own else f"job {number}"


def _own(swept: Collection[str]) -> list[str]:
    """The current job's overrides of the swept keys."""
    from hydra.core.hydra_config import HydraConfig

    task = HydraConfig.get().overrides.task
    return [override for override in task if override.lstrip("+").split("=")[0] in swept]


def _tell(name: str, error: Exception) -> None:
    """A failed job is told at once, while the others go on."""
    if isinstance(error, GraftlabError):
        said = str(error)
    else:
        tell_traceback(error)
        said = f"{type(error).__name__}: {error}"
    print(printable(f"{name} failed: {said}"), file=sys.stderr)


@contextmanager
def _environment(argv: list[str]) -> Iterator[None]:
    """Arguments for Hydra's parser, and its errors unshortened; both put back afterwards."""
    before, shortened = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = before
        if shortened is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = shortened
