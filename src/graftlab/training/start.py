"""A training run from its spec to its result: new, gone on with, or finished before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import format_exception
from typing import TYPE_CHECKING

from graftlab.console import say
from graftlab.errors import ConfigError, GraftlabError, Interrupted, Paused
from graftlab.files.disk import disk_errors_explained
from graftlab.files.writing import write_atomic
from graftlab.plugins import raised_in
from graftlab.process import import_for_good, prepare_process
from graftlab.recipes.dataset import ensure_dataset
from graftlab.registry import dump
from graftlab.terminal import is_ours
from graftlab.tracking.folder import RunFolder, time_limit
from graftlab.tracking.result import Result
from graftlab.training.auto import resolve_auto, resolve_auto_now
from graftlab.training.run_date import resolve_date
from graftlab.training.spec import TrainSpec
from graftlab.training.teacher import resolve_objective
from graftlab.training.trainer import LAUNCHED

if TYPE_CHECKING:
    from graftlab.training.observer import Observer


KEPT = "What was saved before is whole: make room, and the same line with resume=auto goes on."
"""What people are told when the disk refuses."""


def run(spec: TrainSpec, *, observer: Observer | None = None) -> Result:
    """Train as configured and leave a run folder behind; a finished one is only reported.

    Raises GraftlabError (with the fix) for what the user can mend, and Interrupted after a signal
    or Paused by the observer, when the run is saved and can go on with `resume=auto`.
    """
    with plugin_errors_explained(RunFolder(Path(spec.run_dir))), disk_errors_explained(KEPT):
        return _run(spec, observer)


@contextmanager
def plugin_errors_explained(folder: RunFolder) -> Iterator[None]:
    """Turn an error that a plug-in raises inside into one message; the traceback is kept."""
    try:
        yield
    except (GraftlabError, Interrupted, Paused):
        raise
    except Exception as error:
        if (said := raised_in(error)) is None:
            raise
        kept = ""
        if folder.path.is_dir():
            write_atomic(folder.traceback, "".join(format_exception(error)))
            kept = f"\nThe traceback is in {folder.traceback}."
        raise GraftlabError(f"A plug-in failed: {said}{kept}") from error


def _run(spec: TrainSpec, observer: Observer | None) -> Result:
    prepare_process()
    folder = RunFolder(Path(spec.run_dir))
    resolve_objective(spec.objective)
    if folder.finished and spec.resume:
        resolve_auto_now(spec)  # to be compared with the run that is there
    else:
        resolve_auto(spec)
    if folder.finished and not (spec.resume and folder.goes_on(spec.max_minutes)):
        return _finished(spec, folder)
    if LAUNCHED in os.environ:  # whoever launched the ranks holds the folder
        return _train(spec, folder, observer)
    with folder.held():
        if folder.finished:
            folder.require_same(dump(spec))
        return _train(spec, folder, observer)


def _train(spec: TrainSpec, folder: RunFolder, observer: Observer | None) -> Result:
    resolve_date(spec, folder)
    ensure_dataset(spec.data, tell=LAUNCHED not in os.environ)
    resolve_auto(spec)  # by the documents of a recipe that is made only now
    if spec.trainer.needs_launch:
        from graftlab.training.ranks import launch

        folder.reopen()
        launch(spec, folder, observer)
        return Result.read(folder.path / "result.json")

    if is_ours():
        import_for_good("graftlab.training.run")
    from graftlab.training.run import execute

    return execute(spec, folder, observer)


def _finished(spec: TrainSpec, folder: RunFolder) -> Result:
    """The result of a finished run. Raises where something else was asked for."""
    if spec.resume is None:
        raise ConfigError(
            f"{folder.path} holds a finished run: choose another hydra.run.dir (or leave it out)."
        )
    folder.require_same(dump(spec))
    if (limit := time_limit(folder.path)) is not None:
        say(f"Ended by max_minutes={limit:g}: {folder.path} (goes on with more of them, or none).")
    else:
        say(f"Already finished: {folder.path} (train anew without resume).")
    return Result.read(folder.path / "result.json")
