"""Which checkpoint a run goes on from, or ends with: the newest, or the best, that is whole.

A file is whole when its checksum holds and a checkpoint of this run is in it. One that is not is
named, with what is lost by it, and keeps its content under another name: NAME.damaged.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from graftlab.console import say
from graftlab.errors import ResumeError
from graftlab.files.checksums import DamagedError, beside

if TYPE_CHECKING:
    from graftlab.training.checkpoint import CheckpointStore, Saved

ASIDE = ".damaged"


def newest_whole(store: CheckpointStore, configuration: str, *, tell: bool = True) -> Saved | None:
    """The checkpoint to go on from, newer ones that are damaged or another run's set aside.

    `configuration` is the identity of the run. Where all that are whole are of another one, the
    newest of them is returned, and nothing is set aside. Raises ResumeError, naming every file,
    where checkpoints are there and none is whole.
    """
    problems: dict[Saved, str] = {}
    others: list[Saved] = []
    for saved in reversed(store.saved()):
        try:
            content = saved.load(mapped=True)
        except (DamagedError, OSError) as error:
            problems[saved] = str(error)
            continue
        if content["identity"].get("configuration") != configuration:
            others.append(saved)
            problems[saved] = f"{saved.path} is of another configuration"
            continue
        for newer, problem in problems.items():
            _set_aside(newer, problem, instead=saved, tell=tell)
        return saved
    if problems and not others:
        lines = "".join(f"\n  {problem}" for problem in problems.values())
        raise ResumeError(
            f"No checkpoint in {store.folder} can be used:{lines}\n"
            "Copy them again from where they are whole; or remove that folder, and the run begins "
            "anew."
        )
    return others[0] if others else None


def best_whole(store: CheckpointStore, *, tell: bool = True) -> Saved:
    """The best checkpoint that is whole. Raises ResumeError where none is."""
    problems: list[str] = []
    for saved in store.ranked():
        try:
            saved.load(mapped=True)
        except (DamagedError, OSError) as error:
            problems.append(str(error))
            continue
        if problems and tell:
            loss = "" if saved.valid_loss is None else f" (validation loss {saved.valid_loss})"
            say(f"! {'; '.join(problems)}. The adapter is that of step {saved.step}{loss} instead.")
        return saved
    raise ResumeError(f"No checkpoint in {store.folder} is whole: {'; '.join(problems)}")


def _set_aside(saved: Saved, problem: str, *, instead: Saved, tell: bool) -> None:
    """Keep a file that cannot be used under a name that nobody takes for a checkpoint's."""
    aside = saved.path.with_name(saved.path.name + ASIDE)
    with suppress(FileNotFoundError):  # another process of the run was first
        os.replace(saved.path, aside)
    beside(saved.path).unlink(missing_ok=True)
    lost = saved.step - instead.step
    if tell:
        say(
            f"! {problem}: kept as {aside.name}. The run goes on from step {instead.step}, and "
            f"{lost} step{'s are' if lost != 1 else ' is'} trained again."
        )
