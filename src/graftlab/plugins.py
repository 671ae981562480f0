"""Modules of the user's own: imported where the command line allows it, and again in its workers.

Importing registers their classes (`graftlab/registry.py`). What is imported is named by the user
alone, never by a file; workers of a sweep, ranks and probes are told by environment variables.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from graftlab.errors import ConfigError, GraftlabError

PLUGINS, PLUGIN_PATH = "GRAFTLAB_PLUGINS", "GRAFTLAB_PLUGIN_PATH"
"""Environment variables with the user's modules, separated by commas, and the folders where they
are looked for after all others: worker processes read them."""

OWN_CLASS = "The module of a class of your own is named on the command line: plugins=[MODULE]."
"""What is said where a choice is not known."""


def load_plugins(modules: Sequence[str], *, folders: Sequence[Path] = ()) -> None:
    """Import modules of the user's own, whose classes register themselves, here and in workers.

    They are looked for in `folders` where Python finds them nowhere else. Raises ConfigError where
    one cannot be imported.
    """
    paths = [str(folder.resolve()) for folder in folders]
    sys.path += [path for path in dict.fromkeys(paths) if path not in sys.path]
    importlib.invalidate_caches()
    for module in modules:
        try:
            importlib.import_module(module)
        except GraftlabError:
            raise
        except ModuleNotFoundError as error:
            hint = (
                " A module of your own lies in the folder that --config-dir names or in the "
                "current one, or is installed, and is named without .py."
                if error.name == module.split(".")[0] or error.name == module
                else ""
            )
            raise ConfigError(f"plugins={module}: {error}.{hint}") from error
        except Exception as error:
            raise ConfigError(f"plugins={module}: {_place(error)}{error!r}") from error
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


def _add_to(variable: str, values: Sequence[str], separator: str) -> None:
    if values:
        known = _listed(variable, separator)
        os.environ[variable] = separator.join(dict.fromkeys([*known, *values]))


def _listed(variable: str, separator: str) -> list[str]:
    return [value for value in os.environ.get(variable, "").split(separator) if value]


def _place(error: Exception) -> str:
    """'FILE:LINE: ', where a module of the user's went wrong."""
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if not step.filename.startswith("<")]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
