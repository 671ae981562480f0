"""What is exported of Apple's model: adapters under tamm's names, drafts, what a base is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.adapters.artifact import find_artifact
from graftlab.apple.targets import SCALE
from graftlab.errors import ModelError
from graftlab.exports.source import Trained

if TYPE_CHECKING:
    from torch import Tensor


class TrainedAFM(Trained):
    """An adapter for Apple's model (`...a_transpose`), of a run or of the toolkit."""

    __slots__ = ()
    rank_axis: ClassVar[tuple[str, int]] = ("a_transpose", 1)
    for_transformers: ClassVar[bool] = False
    targets: ClassVar[tuple[str, ...]] = ("fmadapter", "mlx", "peft")

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        return any(name.endswith(("a_transpose", "b_transpose")) for name in state)

    @property
    def usual_alpha(self) -> float:
        return SCALE * self.rank


def draft_state(path: Path) -> dict[str, Tensor]:
    """All weights of a draft of Apple's kind: a run, a folder like the toolkit's, or a .pt file.

    Raises ModelError for another model and for a missing or damaged file.
    """
    from graftlab.apple.files import find_assets, read_weights

    if path.is_file():
        return read_weights(path)  # of others: ours are folders
    try:
        found = find_artifact(str(path))
    except ModelError as error:
        raise ModelError(f"target.draft={path}: {error}") from error
    if found.whole is None:
        raise ModelError(
            f"target.draft={path}: no model is there, as a run with lora=none leaves it."
        )
    folder = found.place
    if (folder / "config.json").is_file():
        raise ModelError(
            f"target.draft={path} is a model of transformers, and Apple's runtime takes drafts of "
            "Apple's architecture alone. target=mlpackage takes it."
        )
    return read_weights(find_assets(folder).weights)


def described(base: Path | None) -> dict[str, Any] | None:
    """What a folder of toolkit assets tells tamm of its model; None when it is no such folder."""
    from graftlab.apple.files import find_assets, read_plain

    if base is None:
        return None
    try:
        return read_plain(find_assets(base).config)
    except ModelError:
        return None


def heads_of(base: Path | None) -> int | None:
    """The number of query heads of the model in a folder of toolkit assets; None without one."""
    content = described(base)
    return None if content is None else int(content.get("num_heads", 16))
