"""`plugins=[my_module]`: modules of the user's own, imported before anything else is read.

A module registers its classes (`graftlab.registry.choice`) as it is imported. It is looked for
where Python looks, then in the folder that `--config-dir` names, then in the current one. Only the
command line names one: an option file may not (`cli/options.py`), and no run folder is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.plugins import load_plugins

KEY = "plugins"
MEANING = "modules of your own, [a,b]: classes for your option files (docs/plugins.md)"
"""What `--help` says of it."""

_MODULE = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_VALUE = re.compile(rf"{_MODULE}|\[\s*{_MODULE}(?:\s*,\s*{_MODULE})*\s*\]")


def take_plugins(typed: Sequence[str], extra: Path | None) -> list[str]:
    """Import what `plugins=` names, here and in workers to come; the arguments without it.

    `extra` is the folder of `--config-dir`. Raises ConfigError for a module that cannot be.
    """
    named = [word for word in typed if word.lstrip("+").startswith(f"{KEY}=")]
    modules: list[str] = []
    for word in named:
        value = word.partition("=")[2]
        if _VALUE.fullmatch(value) is None:
            raise ConfigError(
                f"`{word}`: give the names of modules, as Python imports them: "
                f"{KEY}=[my_module] or {KEY}=[my_package.losses,my_package.stops]."
            )
        modules += [name.strip() for name in value.strip("[]").split(",")]
    if modules:
        load_plugins(modules, folders=[*([extra] if extra else []), Path.cwd()])
    return [word for word in typed if word not in named]
