"""The verb `export`: a trained adapter in another runtime's format, read back and compared.

Run as: graftlab export adapter=RUN target=peft out=DIR
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graftlab.errors import ConfigError, ModelError, require_choice
from graftlab.exports.target import Target
from graftlab.exports.targets import make_target, targets
from graftlab.models.base import ModelSpec


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what is known of it."""

    path: Path
    num_bytes: int
    facts: list[str]
    notes: list[str]


@dataclass(kw_only=True, slots=True)
class ExportSpec:
    """`graftlab export adapter=RUN target=TARGET out=DIR`, or `graftlab export verify=PATH`."""

    adapter: str | None = None
    """A run folder, adapter folder or checkpoint, also of another make; a draft's run."""
    target: str | None = None
    """The format, such as peft."""
    out: str | None = None
    """The folder that an export with a name is written into; without one, the export itself."""
    name: str | None = None
    """What it is called, where the format has names."""
    verify: str | None = None
    """Check an export that is there, and write nothing."""
    model: ModelSpec | None = None
    """The base, where the run does not say it or it lies elsewhere now."""
    draft: str | None = None
    """The run of a draft model for speculative decoding."""
    draft_template: str | None = None
    """Folder with the program and weights that a draft is put into; null takes the base's."""
    signature: str | None = None
    """The base model's signature; null takes that of OS 26.0."""
    author: str | None = None
    """Whom the export names as its author; null is what the format has for none."""
    description: str | None = None
    """What metadata.json says of the adapter."""
    with_base: bool | None = None
    """With target=mlx: write the base as well, in the format that mlx-lm loads."""
    bits: int | None = None
    """With target=mlpackage: bits of a weight, 4, 6 or 8; null is 4."""
    length: int | None = None
    """With target=mlpackage: tokens that one call reads; null is 256."""
    overwrite: bool = False
    """Replace an export that is there."""

    def __post_init__(self) -> None:
        if self.verify is not None:
            if self.adapter is not None or self.target is not None:
                raise ConfigError("verify=PATH writes nothing: leave adapter and target out.")
            return
        if self.name is not None and Path(self.name).name != self.name:
            raise ConfigError(f"name={self.name} is a path: out=DIR says where the export goes.")
        if self.adapter is None or self.out is None or self.target is None:
            raise ConfigError(
                "Give adapter=RUN, target=TARGET and out=DIR, or verify=PATH to check an export."
            )
        require_choice("target", self.target, list(targets()))
        self.make()

    def make(self) -> Target:
        """The target with its keys. Raises ConfigError for keys that do not belong to it."""
        keys = ("name", "draft", "draft_template", "signature", "author", "description")
        assert self.target is not None, "a spec that verifies makes no target"
        values = {key: getattr(self, key) for key in (*keys, "with_base", "bits", "length")}
        return make_target(self.target, values)

    def check(self) -> None:
        """Look for what is named, before anything heavy is loaded. Raises GraftlabError."""
        from graftlab.adapters.artifact import find_artifact

        if self.verify is None:
            find_artifact(self.adapter or "")
            if self.model is not None:
                self.model.check()
            for key in ("draft", "draft_template"):
                path = getattr(self, key)
                if path is not None and not Path(path).expanduser().exists():
                    raise ConfigError(f"{key}={path}: there is no such file or folder.")
        elif not Path(self.verify).expanduser().exists():
            raise ConfigError(f"verify={self.verify}: there is no such file or folder.")


def run(spec: ExportSpec) -> Exported | None:
    """Check that the adapter fits, write the export, read it back, and say what it is.

    Raises ConfigError or ModelError with the fix; then nothing is left where it was to be written.
    """
    if spec.verify is not None:
        _verify(Path(spec.verify).expanduser())
        return None
    from graftlab.console import say
    from graftlab.exports.folder import require_free
    from graftlab.files.locks import hold_beside

    target = spec.make()
    out = Path(spec.out or "").expanduser()
    place = out / f"{spec.name}{target.suffix}" if spec.name else out
    with hold_beside(place, tell=say):
        require_free(place, overwrite=spec.overwrite)
        exported = _export(spec, target, place)
    files = list(_files(place))
    for line in _summary(exported, files):
        say(line)
    return exported


def _export(spec: ExportSpec, target: Target, place: Path) -> Exported:
    from graftlab.console import say
    from graftlab.exports.source import load
    from graftlab.files.building import building
    from graftlab.files.ownership import writing_to

    adapter = load(spec.adapter or "", spec.model)
    kind = (
        f"{len(adapter.state)} tensors, rank {adapter.rank}" if adapter.state else "a whole model"
    )
    say(f"{adapter.path}: {kind}")
    notes = target.check(adapter)
    with writing_to(str(place)), building(place, keeps=False) as folder:
        say(f"writing {place}")
        target.write(adapter, folder)
        say("reading it back")
        facts = target.verify(adapter, folder)
    return Exported(place, sum(size for _, size in _files(place)), facts, notes)


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


def _verify(path: Path) -> None:
    """Check an export and say what it is. Raises ModelError naming every broken rule."""
    from graftlab.console import say

    known = {cls.suffix: cls for cls in targets().values() if cls.inspects}
    if path.suffix not in known:
        raise ModelError(f"{path} is no export that can be checked: {', '.join(known)}.")
    for line in known[path.suffix].inspect(path):
        say(line)
