"""`target=fmadapter`: an adapter of Apple's model for the Foundation Models framework of OS 26."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graftlab.apple.exports import package
from graftlab.apple.exports.draftpair import Pair, pair_of
from graftlab.apple.exports.layout import Layout, layout_of
from graftlab.apple.exports.package import SCALE, SIGNATURE_26_0, Metadata
from graftlab.apple.exports.source import TrainedAFM, draft_state, heads_of
from graftlab.apple.exports.verify import Verdict, verify
from graftlab.apple.targets import PROVEN_RANK
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.target import Target, compare
from graftlab.registry import choice

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.source import Trained

RUNTIME = (
    "the framework takes .fmadapter packages on OS 26.x only (their class is deprecated in 26.4), "
    "and this one was checked against the format's rules, not on a device"
)

DRAFTED = (
    "which weight of draft.mil is which was read from names; how the runtime turns positions in it "
    "is not public. A draft put in wrongly costs speed, never words: compare the speed on a device"
)


@choice("fmadapter")
@dataclass(kw_only=True, slots=True)
class FMAdapter(Target):
    """A package `NAME.fmadapter`, with a draft model where one is given."""

    suffix: ClassVar[str] = package.SUFFIX
    needs_name: ClassVar[bool] = True
    inspects: ClassVar[bool] = True
    closed: ClassVar[bool] = True

    signature: str | None = None
    """The base model's signature; null takes that of OS 26.0."""
    author: str | None = None
    """Whom metadata.json names; null is what the toolkit writes."""
    description: str | None = None
    """What metadata.json says of the adapter."""
    draft: str | None = None
    """The run of a draft model for speculative decoding."""
    draft_template: str | None = None
    """Folder with the toolkit's draft.mil and weights template; null takes the base's folder."""

    def __post_init__(self) -> None:
        self.metadata("one", PROVEN_RANK)
        if self.draft_template and not self.draft:
            raise ConfigError(
                "target.draft_template is where a draft's weights go: add target.draft=RUN."
            )

    def check_name(self, name: str | None) -> None:
        Target.check_name(self, name)
        self.metadata(name or "", PROVEN_RANK)

    def check_files(self) -> None:
        for key in ("draft", "draft_template"):
            path = getattr(self, key)
            if path is not None and not Path(path).expanduser().exists():
                raise ConfigError(f"target.{key}={path}: there is no such file or folder.")

    def metadata(self, name: str, rank: int) -> Metadata:
        """What `metadata.json` will say. Raises ConfigError for a name that cannot load."""
        return Metadata(
            name,
            rank,
            self.signature or SIGNATURE_26_0,
            self.author or Metadata("default").author,
            self.description or "",
        )

    def check(self, adapter: Trained) -> list[str]:
        adapter.require_adapter("fmadapter")
        if not isinstance(adapter, TrainedAFM):
            base = adapter.config.get("base_model_name_or_path") or "a Hugging Face model"
            raise ModelError(
                f"{adapter.path} was trained on {base}, and target=fmadapter is for adapters of "
                "Apple's foundation model alone: docs/export.md says which targets take it."
            )
        layout = _layout(adapter)
        notes = [RUNTIME]
        if self.signature is None:
            notes.append(
                "the signature is that of OS 26.0; target.signature=... is for another release"
            )
        if layout.rank != PROVEN_RANK:
            notes.append(f"rank {layout.rank}: only {PROVEN_RANK} is known to load on a device")
        if adapter.scale != SCALE:
            notes.append(
                f"alpha/rank is {adapter.scale:g}, and the runtime takes {SCALE} for granted: "
                f"every B is multiplied by {adapter.scale / SCALE:g}"
            )
        if layout.hidden != Layout().hidden or layout.layers != Layout().layers:
            notes.append(
                f"a model of {layout.layers} layers, {layout.hidden} wide, is not Apple's: the "
                "package is for inspection"
            )
        for _ in package.runtime_tensors(adapter.state, layout, alpha=adapter.alpha):
            pass  # what half precision cannot hold is refused before a file is made
        if self.draft:
            self._pair(adapter)
            notes.append(DRAFTED)
        return notes

    def _pair(self, adapter: Trained) -> Pair:
        """The draft's weights with the places they go to. Raises ModelError."""
        folder = Path(self.draft_template).expanduser() if self.draft_template else adapter.base
        if folder is None:
            raise ModelError(
                "target.draft needs the toolkit's draft.mil and weights template, and the base's "
                "folder is not known: give target.draft_template=DIR."
            )
        return pair_of(draft_state(Path(self.draft or "").expanduser()), folder)

    def write(self, adapter: Trained, folder: Path) -> None:
        layout = _layout(adapter)
        package.write(
            folder,
            adapter.state,
            layout=layout,
            metadata=self.metadata(folder.name.removesuffix(self.suffix), layout.rank),
            alpha=adapter.alpha,
        )
        if self.draft:
            self._pair(adapter).write(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        verdict = _whole(folder)
        count = compare(_pairs(adapter, folder), folder)
        facts = [
            f"identifier {verdict.identifier}",
            f"every rule of the format holds; {count} tensors read back equal, in fp16",
        ]
        if self.draft:
            facts.append(f"draft: {self._pair(adapter).verify(folder)} weights read back equal")
        return facts + verdict.notes

    @classmethod
    def inspect(cls, path: Path) -> list[str]:
        verdict = _whole(path)
        lines = [f"{path} keeps every rule of the format: {verdict.identifier}"]
        if (layout := verdict.layout) is not None:
            lines.append(
                f"  rank {layout.rank}, {verdict.records} tensors for {layout.layers} layers of "
                f"width {layout.hidden}, {verdict.num_bytes:,} bytes"
            )
        lines.append(f"  {'with' if verdict.has_draft else 'without'} a draft model")
        return lines + [f"  note: {note}" for note in verdict.notes]


def _whole(path: Path) -> Verdict:
    """What a package is. Raises ModelError naming every rule that it breaks."""
    verdict = verify(path)
    if verdict.broken:
        problems = "\n".join(f"  {problem}" for problem in verdict.broken)
        raise ModelError(f"{path.name} breaks rules of its format:\n{problems}")
    return verdict


def _layout(adapter: Trained) -> Layout:
    try:
        return layout_of(adapter.state, heads=heads_of(adapter.base))
    except ModelError as error:
        raise ModelError(f"{adapter.path} cannot be a .fmadapter: {error}") from error


def _pairs(adapter: Trained, folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    layout = _layout(adapter)
    found = package.read_weights(folder / package.WEIGHTS, layout)
    wanted = package.expected(adapter.state, layout, alpha=adapter.alpha)
    for (slot, tensor), told in zip(found, wanted, strict=True):
        yield slot.name, tensor, told
