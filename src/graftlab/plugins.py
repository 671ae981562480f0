"""Modules of the user's own: imported where the command line allows it, and again in its workers.

Importing registers their classes (`graftlab/registry.py`). What is imported is named by the user
alone, never by a file; workers of a sweep, ranks and probes are told by environment variables.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from graftlab.errors import ConfigError, GraftlabError

PLUGINS, PLUGIN_PATH = "GRAFTLAB_PLUGINS", "GRAFTLAB_PLUGIN_PATH"
"""Environment variables with the user's modules, separated by commas, and the folders where they
are looked for after all others: worker processes read them."""

OWN_CLASS = "The module of a class of your own is named on the command line: plugins=[MODULE]."
"""What is said where a choice is not known."""

CHOICE = re.compile(r"[a-z][a-z0-9_-]*")
"""What a choice may be called."""

NOBODYS = frozenset({*sys.stdlib_module_names, "__main__", "graftlab"})
"""Names of modules that are Python's or graftlab's."""


class _Named(MetaPathFinder):
    """Finds the modules that the user named in the user's folders, and nothing else there.

    On `sys.path`, such a folder would lend its files to whoever looks for a package that is not
    installed, and Hydra imports all of a folder `hydra_plugins` by itself.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.folders: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in self.names:
            return None
        return self.look(fullname)

    def look(self, name: str) -> ModuleSpec | None:
        """What is there of that name; a folder of no package, such as one of options, is none."""
        found = PathFinder.find_spec(name, self.folders)
        return found if found is not None and found.origin is not None else None


_FINDER = _Named()


def load_plugins(modules: Sequence[str], *, folders: Sequence[Path] = ()) -> None:
    """Import modules of the user's own, whose classes register themselves, here and in workers.

    They are looked for in `folders` where Python finds them nowhere else. Raises ConfigError where
    one cannot be imported, and where Python finds another than the one in `folders`.
    """
    paths = [str(folder.resolve()) for folder in folders]
    _FINDER.folders = list(dict.fromkeys([*paths, *_FINDER.folders]))
    _FINDER.names |= {_top(module) for module in modules} - NOBODYS
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
    importlib.invalidate_caches()
    for module in modules:
        _refuse_another(module)
        try:
            importlib.import_module(module)
        except (GraftlabError, KeyboardInterrupt):
            raise
        except ModuleNotFoundError as error:
            raise ConfigError(f"plugins={module}: {error}.{_hint(error, module)}") from error
        except BaseException as error:  # SystemExit, too
            said = raised_in(error, {_top(module)}) or f"{type(error).__name__}: {error}"
            raise ConfigError(f"plugins={module}: {said}") from error
    _add_to(PLUGINS, modules, ",")
    _add_to(PLUGIN_PATH, paths, os.pathsep)


def load_inherited() -> None:
    """Import in a worker what the process that started it has imported."""
    folders = [Path(path) for path in _listed(PLUGIN_PATH, os.pathsep)]
    if modules := _listed(PLUGINS, ","):
        load_plugins(modules, folders=folders)


def plugin_environment() -> dict[str, str]:
    """The variables by which a process finds the user's modules, for one started far away."""
    return {name: os.environ[name] for name in (PLUGINS, PLUGIN_PATH) if name in os.environ}


def raised_in(error: BaseException, tops: set[str] | None = None) -> str | None:
    """'FILE:LINE: ValueError: why' of the last line of a plug-in that led to an error, or None.

    `tops` are the first names of the modules that count; those of all plug-ins, if it is None.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    ours = {_top(module) for module in _listed(PLUGINS, ",")} if tops is None else tops
    steps = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _top(frame.f_globals.get("__name__", "")) in ours
    ]
    return f"{steps[-1]}: {type(error).__name__}: {error}" if steps else None


def group_of(cls: type, name: str, groups: Mapping[str, type], *, mark: str) -> str:
    """The group, of name -> base class, in which `cls` can be the choice `name`.

    `mark` is what no key of it may be called. Raises ConfigError where it can be in none.
    """
    where = f"{cls.__module__}.{cls.__qualname__}, choice `{name}`"
    own = next(
        (key for base in cls.__mro__ for key, found in groups.items() if found is base), None
    )
    fields = cls.__dict__.get("__dataclass_fields__")
    if own is None:
        bases = ", ".join(base.__name__ for base in groups.values())
        raise ConfigError(f"{where}: the class inherits none of {bases}.")
    if CHOICE.fullmatch(name) is None:
        raise ConfigError(f"{where}: a name is made of a-z, 0-9, - and _, a letter first.")
    if fields is None:
        raise ConfigError(
            f"{where}: the class is no dataclass (yet): @choice stands above "
            "@dataclass(kw_only=True, slots=True)."
        )
    if mark in fields:
        raise ConfigError(f"{where}: no key may be called `{mark}`, which names the class.")
    return own


def types_of(cls: type) -> dict[str, Any]:
    """Key -> type of a class. Raises ConfigError where one cannot be found."""
    try:
        return get_type_hints(cls)
    except NameError as error:
        raise ConfigError(
            f"{cls.__module__}.{cls.__qualname__}: {error}. The types of keys are read when it is "
            "used: import them outside of `if TYPE_CHECKING`."
        ) from error


def _refuse_another(module: str) -> None:
    """Raise ConfigError where `module` names one that is not the user's, or not the one meant."""
    top = _top(module)
    if top in NOBODYS:
        owner = "graftlab itself" if top == "graftlab" else "a module of Python's own"
        raise ConfigError(f"plugins={module}: {top} is {owner}. Give your file another name.")
    own, first = _FINDER.look(top), _found(top)
    if own is None or first is None or own.origin is None:
        return
    if first.origin is None or os.path.realpath(own.origin) != os.path.realpath(first.origin):
        where = first.origin or f"another {top}"
        raise ConfigError(
            f"plugins={module}: Python finds {where} before {own.origin}. "
            "Give your file another name."
        )


def _found(top: str) -> ModuleSpec | None:
    """Where `import top` leads, without importing it."""
    try:
        return find_spec(top)
    except ValueError:  # a module in memory that was made by hand
        return None


def _hint(error: ModuleNotFoundError, module: str) -> str:
    lost = error.name or ""
    if lost in (_top(module), module):
        return (
            " A module of your own lies in the folder that --config-dir names or in the current "
            "one, or is installed, and is named without .py."
        )
    if (beside := _FINDER.look(_top(lost))) is not None:
        return f" Name {beside.origin} as well: plugins=[{module},{_top(lost)}]."
    return ""


def _top(module: str) -> str:
    return module.partition(".")[0]


def _add_to(variable: str, values: Sequence[str], separator: str) -> None:
    if values:
        known = _listed(variable, separator)
        os.environ[variable] = separator.join(dict.fromkeys([*known, *values]))


def _listed(variable: str, separator: str) -> list[str]:
    return [value for value in os.environ.get(variable, "").split(separator) if value]
