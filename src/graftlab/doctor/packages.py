"""Which packages are installed, and whether they are of the versions that graftlab asks for."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from graftlab import __version__
from graftlab.doctor.finding import Finding

CORE = ("torch", "lightning", "transformers", "peft", "hydra-core", "wandb")
"""Named with their versions; of the others only what is amiss is said."""
INTERNAL = ("dev", "mutants", "trl")
"""Extras of those who work on graftlab itself."""


def check_packages() -> Iterator[Finding]:
    """Versions, requirements that are not met, and which extras are whole."""
    yield Finding("graftlab", f"{__version__}, Python {platform.python_version()}")
    yield Finding("packages", ", ".join(f"{name} {version(name)}" for name in CORE))
    for wanted in _requirements(None):
        if (problem := _problem(wanted)) is not None:
            cure = f'pip install "{wanted.name}{wanted.specifier}"'
            yield Finding(wanted.name, problem, cure, broken=True)
    whole: list[str] = []
    rest: list[str] = []
    for extra in sorted(_extras() - set(INTERNAL)):
        wanted_by = list(_requirements(extra))
        (rest if any(map(_problem, wanted_by)) else whole).append(extra)
    yield Finding("extras", ", ".join(whole) or "none")
    if rest:
        line = f"pip install 'graftlab[{rest[0]}]'"
        yield Finding("extras not here", f"{', '.join(rest)} ({line}, where one is wanted)")


@cache
def _all() -> tuple[Requirement, ...]:
    return tuple(map(Requirement, requires("graftlab") or ()))


def _extras() -> set[str]:
    from importlib.metadata import metadata

    return set(metadata("graftlab").get_all("Provides-Extra") or ())


def _requirements(extra: str | None) -> Iterator[Requirement]:
    """What graftlab needs on this system; with `extra`, what that one adds."""
    for wanted in _all():
        plain = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if plain:
            asked = extra is None
        else:
            assert wanted.marker is not None, "else it would be plain"
            asked = extra is not None and wanted.marker.evaluate({"extra": extra})
        if asked:
            yield wanted


def _problem(wanted: Requirement) -> str | None:
    """What is wrong with an installed package; None when nothing is."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return "is not installed"
    if not wanted.specifier.contains(found, prereleases=True):
        return f"is {found}, and graftlab needs {wanted.specifier}"
    return None
