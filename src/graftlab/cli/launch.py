"""Running as Hydra does: one job, or one after the other, failures told by job.

A sweep of `train` has an engine of its own (`cli/sweep.py`); other verbs are light enough.

Hydra makes the run folder, keeps `.hydra/` in it, and hands jobs to its launcher. Errors of a job
do not pass through it (it would shorten them); they are collected here, and told by `main`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.cli.compose import initialized, register
from graftlab.cli.job_outputs import place_job
from graftlab.cli.overrides import Argument
from graftlab.cli.preflight import CommandLine, built, composed, sweep_values, verified
from graftlab.console import say
from graftlab.errors import ConfigError, GraftlabError, Interrupted
from graftlab.files.ownership import kind_of, unwritable
from graftlab.registry import dump
from graftlab.terminal import keep_log, printable, tell_traceback
from graftlab.tracking.folder import LOG, RunFolder, adopt, find_run
from graftlab.tracking.identity import identity

if TYPE_CHECKING:
    from omegaconf import DictConfig

RUNS = Path("outputs")


@dataclass(slots=True)
class Outcome:
    """What became of the jobs of one line with -m."""

    jobs: int = 0
    failed: dict[str, Exception] = field(default_factory=dict)
    """Job, in words -> what ended it."""
    results: list[Any] = field(default_factory=list)
    """What the jobs of this process returned, in their order."""


def run_once(command: CommandLine, words: Sequence[Argument]) -> tuple[Any, Any]:
    """Compose, build and check once, then run the job in Hydra's way; the spec, and its result.

    Raises whatever the job raises, ConfigError for what is to be mended, and BusyError where the
    run folder is in use.
    """
    cfg = composed(command, command.overrides(words), hydra=True)
    spec = verified(command, cfg)
    task = importlib.import_module(f"graftlab.verbs.{command.schema.verb}")
    if command.schema.verb != "train":
        return spec, _in_job(command, cfg, lambda: task.run(spec))
    folder = _to_resume(spec, words) or Path(str(cfg.hydra.run.dir)).expanduser()
    cfg.hydra.run.dir = str(folder)
    spec.run_dir = os.path.abspath(folder)

    def train() -> Any:
        keep_log(folder / LOG)
        return task.run(spec)

    with RunFolder(folder).held():
        return spec, _in_job(command, cfg, train)


def _in_job(command: CommandLine, cfg: DictConfig, task: Callable[[], Any]) -> Any:
    """What `task` returns or raises, called as Hydra calls one: logging set, `.hydra/` written."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import run_job
    from hydra.types import HydraContext

    ended: list[BaseException] = []
    results: list[Any] = []

    def job(_: DictConfig) -> None:
        try:
            results.append(task())
        except BaseException as error:  # Hydra would shorten it
            ended.append(error)

    with initialized(command.conf):
        context = HydraContext(
            config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks(cfg)
        )
        try:
            run_job(job, cfg, "hydra.run.dir", None, context)
        except OSError as error:
            raise unwritable("the folder for Hydra's notes", error) from error
    if ended:
        raise ended[0]
    return results[0]


def run_each(command: CommandLine, words: Sequence[Argument]) -> Outcome:
    """Run every job of the line in turn (-m). Never raises what a job raised."""
    outcome, home = Outcome(), os.getpid()
    swept = {word.key for word in words if len(sweep_values(word.hydra, command.schema)) > 1}
    task = importlib.import_module(f"graftlab.verbs.{command.schema.verb}")

    def job(cfg: DictConfig) -> Any:
        outcome.jobs += 1
        name = _job_name(swept)
        try:
            spec = built(command, cfg, tell=say)
            place_job(spec, _own(swept))
            result = task.run(spec)
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
            _tell(name, error)
            return None

    try:
        through_hydra(command, ["--multirun", *command.overrides(words)], job)
    except OSError as error:  # a job's own are in `outcome`: Hydra could not make its folders
        raise unwritable("the folder for Hydra's notes", error) from error
    return outcome


def through_hydra(command: CommandLine, arguments: Sequence[str], job: Any) -> None:
    """Hydra's own entry point with these arguments; its errors come out whole."""
    import hydra

    register()
    main = hydra.main(
        version_base="1.3", config_path=str(command.conf.resolve()), config_name=command.schema.verb
    )
    with _environment([sys.argv[0], *arguments]):
        main(job)()


def _to_resume(spec: Any, words: Sequence[Argument]) -> Path | None:
    """The folder of the run to be finished; None where none is asked for, or there."""
    given = any(word.key == "hydra.run.dir" for word in words)
    resume = spec.resume
    if resume is None or (given and resume == "auto"):
        return None
    if resume != "auto":
        return _existing(resume, given)
    from graftlab.training.auto import resolve_auto_now

    if not RUNS.is_dir():
        return None
    resolve_auto_now(spec)
    found = find_run(RUNS, identity(dump(spec)))
    if found is None:
        return None
    adopt(found.path)
    ours = kind_of(found.path) is not None  # else nothing was begun there: it starts afresh
    return found.path if ours else None


def _existing(resume: str, given: bool) -> Path:
    if given:
        raise ConfigError(f"resume={resume} is the run folder: leave hydra.run.dir out.")
    folder = Path(resume).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"resume={resume}: there is no such folder. resume=auto looks for one.")
    adopt(folder)
    return folder


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
