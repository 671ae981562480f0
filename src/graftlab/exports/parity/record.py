"""`parity.json`: what was found when an export was compared with training, and how to do it again.

EXPORT/parity.json          beside the files of a folder
EXPORT.parity.json          beside a file, or a package that may hold nothing else

{"target": {"choice": "merged", ...}, "adapter": "RUN/adapter", "verdict": "as trained",
 "found": {"kl": 1e-12, ...}, "check": "graftlab export verify=EXPORT"}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.files.checksums import CHECKSUMS, write_checksums
from graftlab.files.reading import UnreadableError, read_json
from graftlab.files.writing import write_json
from graftlab.registry import dump, restore

if TYPE_CHECKING:
    from graftlab.exports.parity.measure import Measured
    from graftlab.exports.target import Target

FILE = "parity.json"
AS_TRAINED, REFUSED, UNCHECKED = "as trained", "refused", "not checked here"


@dataclass(frozen=True, slots=True)
class Report:
    """What the comparison came to."""

    verdict: str
    """`AS_TRAINED`, `REFUSED` or `UNCHECKED`."""
    why: str = ""
    """Why it was not checked, or not kept."""
    measured: Measured | None = None
    curable: bool = False
    """Whether it is the numbers that are off, so that other types may help."""

    def shown(self, place: Path) -> list[str]:
        """Lines for people."""
        if self.measured is not None:
            return self.measured.shown()
        return [f"{UNCHECKED}: {self.why}; later: {check_line(place)}"]

    def public(self) -> Report:
        """Without what may name a place of this machine."""
        measured = self.measured and replace(self.measured, why="")
        return replace(self, measured=measured)

    def found(self) -> dict[str, Any]:
        """The numbers by name."""
        measured = self.measured
        if measured is None:
            return {}
        names = [f.name for f in fields(measured) if f.name != "scores"]
        shares = {"recovered": measured.recovered, "control": measured.control}
        return {name: getattr(measured, name) for name in names} | shares


def check_line(place: Path) -> str:
    """What checks an export anew, as it is typed."""
    return f"graftlab export verify={place}"


def file_of(place: Path) -> Path | None:
    """Where the record of an export lies; None where it has none."""
    inside, beside = place / FILE, place.with_name(f"{place.name}.{FILE}")
    return next((file for file in (inside, beside) if file.is_file()), None)


def keep(
    report: Report, target: Target, adapter: Path, *, place: Path, folder: Path | None
) -> None:
    """Write the record of the export that is, or will be, at `place`.

    `folder` is where it is being made, or lies; None for one that may hold nothing else. One that
    is shared names no place, and has the table in its card.
    """
    named = {} if target.shared else {"adapter": str(adapter)}
    report = report.public() if target.shared else report
    content = {
        "target": dump(target),
        **named,
        "verdict": report.verdict,
        **({"why": report.why} if report.why else {}),
        "found": report.found(),
        "check": check_line(Path("PATH") if target.shared else place),
    }
    if folder is None:
        write_json(place.with_name(f"{place.name}.{FILE}"), content)
        return
    write_json(folder / FILE, content)
    shown = report.shown(Path("PATH")) if target.shared else report.shown(place)
    changed = [FILE, *target.tell(folder, shown)]
    if (folder / CHECKSUMS).is_file():
        kept = read_json(folder / CHECKSUMS)
        others = {name: value for name, value in kept.items() if name not in changed}
        write_checksums(folder, changed, more=others)


def read(file: Path) -> tuple[Target, str | None]:
    """The target and the adapter that a record names. Raises ModelError."""
    from graftlab.exports.target import Target

    try:
        content = read_json(file)
        if not isinstance(content, Mapping):
            raise TypeError("it holds no keys")
        target = restore(Target, content["target"], path="target")  # type: ignore[type-abstract]
        adapter = content.get("adapter")
    except (OSError, UnreadableError, KeyError, TypeError, ValueError) as error:
        said = str(error).rstrip(".")
        raise ModelError(f"{file} is no record of an export: {said}.") from error
    return target, str(adapter) if adapter is not None else None
