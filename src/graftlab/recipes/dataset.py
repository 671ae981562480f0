"""`data.recipe=NAME`: the data set that a run reads, made first when it is not there.

compose           the recipe in full, and the key of its result, into the run's specification
ensure_dataset    the folder: found by its key, or made while other processes wait

    CACHE/prepared-KEY/         a result; `data.path=DIR` chooses another place
    CACHE/.prepared-KEY.lock    held by the process that makes it
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from graftlab.caches import tell_damage
from graftlab.console import say
from graftlab.data.prepared import MANIFEST, WHOLE, PreparedData
from graftlab.data.source import DataSpec
from graftlab.errors import ConfigError, DataError, GraftlabError
from graftlab.files.checksums import check_folder_once
from graftlab.files.locks import hold
from graftlab.files.reading import read_json
from graftlab.recipes.key import key_of
from graftlab.recipes.prepare import prepare
from graftlab.recipes.spec import PrepareSpec
from graftlab.recipes.summary import briefly
from graftlab.registry import dump, restore


def compose(data: PreparedData, recipe: PrepareSpec) -> None:
    """Put the composed recipe and the key of its result into `data`; nothing is made yet.

    Raises ConfigError where an input is missing or the folder holds something else.
    """
    recipe.out = None
    try:
        recipe.check_inputs()
    except ConfigError as error:
        hint = " Its corpus is data.corpus=FILE." if data.corpus is None else ""
        raise ConfigError(f"{error}{hint}") from error
    data.prepare, data.key = dump(recipe), key_of(recipe)
    _look(data)


def ensure_dataset(data: DataSpec, *, tell: bool = True) -> Path | None:
    """The folder of the recipe that `data` names, made if need be; None where it names none.

    Whoever else wants the same folder waits, and finds it. Raises ConfigError or DataError.
    """
    if not isinstance(data, PreparedData) or data.recipe is None:
        return None
    folder = data.folder()
    if _look(data):
        if tell:
            say(f"data.recipe={data.recipe}: prepared before; its report: {folder / 'report.html'}")
        return folder
    with _alone(data, folder):
        if not _look(data):
            _make(data, folder)
    return folder


def _make(data: PreparedData, folder: Path) -> None:
    say(f"data.recipe={data.recipe}: not prepared yet; it goes to {folder}")
    if not data.path:  # in the cache, whatever is left of it is ours
        shutil.rmtree(folder, ignore_errors=True)
    spec = restore(PrepareSpec, data.prepare, path="data.prepare")
    spec.out = str(folder)
    if (line := spec.advice()) is not None:
        say(line)
    with named(data):
        made = prepare(spec, key=data.key, shown=True)
    briefly(made)


def _look(data: PreparedData) -> bool:
    """Whether the result is there, whole and of this key.

    Raises ConfigError where the folder that the user chose holds another.
    """
    folder = data.folder()
    try:
        manifest = read_json(folder / MANIFEST)
        if check_folder_once(folder, WHOLE) and manifest.get("key") == data.key:
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        if data.path:
            raise ConfigError(
                f"data.path={data.path}: {error}. Remove the folder, and it is prepared again; or, "
                "if the change was yours, train on the files themselves: data=jsonl "
                f"data.train={folder / 'train.jsonl'}"
            ) from error
        tell_damage(f"{error}: data.recipe={data.recipe} is prepared again.")
        return False
    if data.path:
        raise ConfigError(
            f"data.path={data.path} holds a data set of other inputs, parameters or version than "
            f"data.recipe={data.recipe} asks for, or was changed by hand: give another data.path, "
            "none (the cache then keeps one of each), or remove the folder."
        )
    return False


@contextmanager
def _alone(data: PreparedData, folder: Path) -> Iterator[None]:
    """The only process that makes `folder`; the others are told that they wait."""
    file = folder.with_name(f".{folder.name}.lock")

    def wait(holder: str) -> None:
        say(f"data.recipe={data.recipe}: {holder} prepares it; waiting for {folder}")

    with ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(file, what=str(folder), tell=say, wait=wait))
        except OSError as error:
            raise ConfigError(
                f"data.recipe={data.recipe}: {file.parent} cannot be written ({error.strerror}): "
                "give data.path=DIR, or let GRAFTLAB_CACHE name a folder with room."
            ) from error
        yield


@contextmanager
def named(data: PreparedData) -> Iterator[None]:
    """Errors of the recipe, with the key that asked for it."""
    begin = f"data.recipe={data.recipe}: "
    try:
        yield
    except DataError as error:
        raise DataError(begin + error.summary, error.rows) from error
    except GraftlabError as error:
        raise type(error)(begin + str(error)) from error
