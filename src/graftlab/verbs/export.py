"""The verb `export`: a trained adapter in another runtime's format, kept if it answers as trained.

Run as: graftlab export adapter=RUN target=peft out=DIR
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, ModelError
from graftlab.exports.parity.spec import Parity
from graftlab.exports.target import Target
from graftlab.models.base import ModelSpec
from graftlab.registry import choices

if TYPE_CHECKING:
    from graftlab.exports.parity.record import Report


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what is known of it."""

    path: Path
    num_bytes: int
    facts: list[str]
    notes: list[str]
    report: Report
    """How it answered, compared with training."""


@dataclass(kw_only=True, slots=True)
class ExportSpec:
    """`graftlab export adapter=RUN target=TARGET out=DIR`, or `graftlab export verify=PATH`."""

    adapter: str | None = None
    """A run folder, adapter folder or checkpoint, also of another make; a draft's run."""
    target: Target | None = None
    """The format, with its keys."""
    out: str | None = None
    """The folder that an export with a name is written into; without one, the export itself."""
    name: str | None = None
    """What it is called, where the format has names."""
    verify: str | None = None
    """Check an export that is there, in its own runtime; `adapter` where it does not name its."""
    parity: Parity = field(default_factory=Parity)
    model: ModelSpec | None = None
    """The base, where the run does not say it or it lies elsewhere now."""
    overwrite: bool = False
    """Replace an export that is there."""

    def __post_init__(self) -> None:
        self.parity.check()
        if self.verify is not None:
            if self.target is not None or self.out is not None:
                raise ConfigError("verify=PATH writes no export: leave target and out away.")
            return
        if self.name is not None and not _is_plain(self.name):
            raise ConfigError(f"name={self.name} is a path: out=DIR says where the export goes.")
        if self.adapter is None or self.out is None or self.target is None:
            raise ConfigError(
                "Give adapter=RUN, target=TARGET and out=DIR, or verify=PATH to check an export."
            )
        self.target.check_name(self.name)

    def check(self) -> None:
        """Look for what is named, before anything heavy is loaded. Raises GraftlabError."""
        from graftlab.adapters.artifact import find_artifact

        if self.adapter is not None:
            find_artifact(self.adapter)
        if self.model is not None:
            self.model.check()
        if self.target is not None:
            self.target.check_files()
        elif self.verify is not None and not Path(self.verify).expanduser().exists():
            raise ConfigError(f"verify={self.verify}: there is no such file or folder.")


def _is_plain(name: str) -> bool:
    return name not in ("", "..") and Path(name).name == name


def run(spec: ExportSpec) -> Exported | None:
    """Check that the adapter fits, write the export, read it back, and say what it is.

    Raises ConfigError or ModelError with the fix; then nothing is left where it was to be written.
    """
    if spec.target is None:
        _verify(spec, Path(spec.verify or "").expanduser())
        return None
    from graftlab.console import say
    from graftlab.exports.folder import place_of, require_free
    from graftlab.files.locks import hold_beside

    target = spec.target
    place = place_of(spec.out or "", spec.name, target.suffix)
    with hold_beside(place, tell=say):
        require_free(place, overwrite=spec.overwrite)
        exported = _export(spec, target, place)
        for line in _summary(exported, list(_files(place))):
            say(line)
        for line in target.publish(place):
            say(line)
    return exported


def _export(spec: ExportSpec, target: Target, place: Path) -> Exported:
    from graftlab.console import say
    from graftlab.exports.folder import require_apart
    from graftlab.exports.parity.gate import gate, notes_of, require_as_trained
    from graftlab.exports.parity.record import keep
    from graftlab.exports.source import load
    from graftlab.files.building import building
    from graftlab.files.ownership import writing_to

    adapter = load(spec.adapter or "", spec.model)
    require_apart(place, (adapter.path, adapter.base))
    ranks = ", ".join(map(str, adapter.ranks))
    rank = f"ranks {ranks}" if len(adapter.ranks) > 1 else f"rank {ranks}"
    kind = f"{len(adapter.state)} tensors, {rank}" if adapter.state else "a whole model"
    say(f"{adapter.path}: {kind}")
    notes = [*adapter.notes(), *target.check(adapter)]
    with writing_to(str(place)), building(place, keeps=False) as folder:
        say(f"writing {place}")
        target.write(adapter, folder)
        say("reading it back")
        facts = target.verify(adapter, folder)
        if spec.parity.rows:
            say("asking it in its own runtime")
        report = gate(target, adapter, folder, spec.parity)
        for line in report.shown(place):
            say(line)
        require_as_trained(report, target)
        if not target.closed:
            keep(report, target, adapter.path, place=place, folder=folder)
    if target.closed:
        keep(report, target, adapter.path, place=place, folder=None)
    notes += notes_of(report, target)
    return Exported(place, sum(size for _, size in _files(place)), facts, notes, report)


def _summary(exported: Exported, files: list[tuple[str, int]]) -> Iterator[str]:
    yield f"{exported.path}: {exported.num_bytes:,} bytes"
    width = max(len(name) for name, _ in files)
    for name, size in files:
        yield f"  {name:<{width}}  {size:>13,}"
    yield from (f"  {fact}" for fact in exported.facts)
    yield from (f"  note: {note}" for note in exported.notes if note not in exported.facts)


def _files(place: Path) -> Iterator[tuple[str, int]]:
    for file in sorted(place.rglob("*")):
        if file.is_file():
            yield str(file.relative_to(place)), file.stat().st_size


def _verify(spec: ExportSpec, path: Path) -> None:
    """Check an export and say what it is.

    Raises ModelError naming every broken rule, or how it answers otherwise than it was trained.
    """
    from graftlab.console import say
    from graftlab.exports.parity.record import file_of
    from graftlab.exports.parity.verify import verify

    formats = [cls for cls in choices("target").values() if issubclass(cls, Target)]
    inspecting = {cls.suffix: cls for cls in formats if cls.inspects}
    if path.suffix in inspecting:
        for line in inspecting[path.suffix].inspect(path):
            say(line)
    elif file_of(path) is None:
        raise ModelError(
            f"{path} is no export that can be checked: it has no parity.json, and is no "
            f"{', '.join(inspecting)}."
        )
    if file_of(path) is not None:
        for line in verify(path, spec.parity, adapter=spec.adapter, model=spec.model):
            say(line)
