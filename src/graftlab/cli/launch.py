"""Running as Hydra does: one job, or one after the other, failures told by job.

A sweep of `train` has an engine of its own (`cli/sweep.py`); other verbs are light enough.

Hydra makes the run folder and keeps `.hydra/` in it. Errors of a job do not pass through it (it
would shorten them).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.cli.compose import initialized, register
from graftlab.cli.overrides import Argument
from graftlab.cli.preflight import CommandLine, composed, sweep_values, verified, verify
from graftlab.cli.space import dimension_of, space_arguments
from graftlab.console import say
from graftlab.errors import ConfigError, GraftlabError, Interrupted, counted
from graftlab.files.ownership import kind_of, unwritable
from graftlab.registry import dump
from graftlab.sweeps.space import grid
from graftlab.terminal import keep_log, printable, tell_traceback
from graftlab.tracking.folder import LOG, RunFolder, adopt, find_run
from graftlab.tracking.identity import identity
from graftlab.training.auto import resolve_auto_now

if TYPE_CHECKING:
    from omegaconf import DictConfig

RUNS = Path("outputs")


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

    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with RunFolder(folder).held():
        try:
            return spec, _in_job(command, cfg, train)
        except GraftlabError:
            RunFolder(folder).withdraw(made)
            raise


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


def run_each(command: CommandLine, words: Sequence[Argument]) -> int:
    """Run the jobs of a line with -m in turn, all checked before the first starts.

    Returns the exit code: a job that fails stops no other. Raises ConfigError before any starts.
    """
    if any(word.key == "sweep" for word in words):  # a space: plan sums one, too
        first = verify(command, _jobs(command, words)[0])
        words = [*words, *space_arguments(first, words, command.schema)]
    jobs = _jobs(command, words)
    several = [
        place for place, options in enumerate(zip(*jobs, strict=True)) if len(set(options)) > 1
    ]
    owned = [[job[place].lstrip("+") for place in several] for job in jobs]
    told: list[list[str]] = [[] for _ in jobs]
    specs = [
        verify(command, job, own=own, tell=lines.append)
        for job, own, lines in zip(jobs, owned, told, strict=True)
    ]
    task = importlib.import_module(f"graftlab.verbs.{command.schema.verb}")
    results: list[Any] = []  # of verbs that return something
    failed: list[str] = []

    def run_all() -> None:
        for number, (spec, own, lines) in enumerate(zip(specs, owned, told, strict=True)):
            for line in (f"#{number}: {' '.join(own)}", *lines):
                say(line)
            try:
                if (result := task.run(spec)) is not None:
                    results.append(result)
            except Interrupted:
                raise
            except Exception as error:
                failed.append(f"job {number} ({' '.join(own)})" if own else f"job {number}")
                _tell(failed[-1], error)

    say(f"Launching {counted(len(jobs), 'job')}")
    _in_job(command, composed(command, jobs[0], hydra=True), run_all)
    if results and hasattr(task, "summarise"):
        task.summarise(results, specs[0])
    if not failed:
        return 0
    print(f"{len(failed)} of {len(jobs)} jobs failed:", file=sys.stderr)
    for name in failed:
        print(printable(f"  {name}"), file=sys.stderr)
    return 1


def _jobs(command: CommandLine, words: Sequence[Argument]) -> list[tuple[str, ...]]:
    """The overrides of each job, the last swept word fastest. Raises ConfigError for an interval,
    which has no end of values.
    """
    grid([d for word in words if (d := dimension_of(word.hydra, command.schema)) is not None])
    return list(product(*(sweep_values(o, command.schema) for o in command.overrides(words))))


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
