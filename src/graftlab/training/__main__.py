"""One process of a run of several: builds the run from the file its launcher wrote.

Started by torchrun (see `training/ranks.py`), which sets RANK, LOCAL_RANK and WORLD_SIZE; in a
sweep with the words of the job's observer.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from graftlab.errors import GraftlabError, Interrupted, Paused
from graftlab.files.reading import read_json
from graftlab.parent_watch import leave_with_parent
from graftlab.registry import restore
from graftlab.terminal import go_on_without_stdout, keep_log, steady_streams
from graftlab.tracking.folder import LOG
from graftlab.training.observer import Observer
from graftlab.training.ranks import held_alone, leave_word
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.trainer import LAUNCHED


def main(file: Path, *observer: str) -> int:
    """Train as `file` says; returns the exit code."""
    if LAUNCHED in os.environ:  # a probe's single process has any input, or none
        leave_with_parent()
    first = os.environ.get("RANK") == "0"
    with held_alone(file.parent) if first else nullcontext(), steady_streams():
        go_on_without_stdout()
        if first and LAUNCHED in os.environ:
            keep_log(file.parent / LOG)
        return _train(file, *observer)


def _train(file: Path, *observer: str) -> int:
    try:
        spec = restore(TrainSpec, read_json(file))
        run(spec, observer=_observer(*observer))
    except Paused as pause:
        leave_word(file, "paused", str(pause))
    except Interrupted as stop:
        leave_word(file, "interrupted", str(stop))
        return stop.exit_code
    except GraftlabError as error:
        leave_word(file, "refused", str(error))
        return 2
    except Exception as error:
        leave_word(file, "crashed", f"{type(error).__name__}: {error}")
        raise
    return 0


def _observer(maker: str = "", *words: str) -> Observer | None:
    """What the launcher's observer asked to be made here (`Observer.travels`)."""
    if not maker:
        return None
    module, _, name = maker.partition(":")
    made: Observer = getattr(importlib.import_module(module), name)(
        *words, first=os.environ.get("RANK") == "0"
    )
    return made


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
