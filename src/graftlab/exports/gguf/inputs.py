"""What comes into the matrices of a trained model: its importance matrix is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graftlab.errors import GraftlabError, ModelError
from graftlab.exports.gguf.importance import COUNT, FILE, SUM
from graftlab.exports.gguf.writing import Entry, write_gguf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graftlab.adapters.artifact import TrainedModel
    from graftlab.exports.gguf.draft import Draft


def asked_rows(trained: TrainedModel, count: int) -> tuple[list[list[int]], str]:
    """The ids of training rows, and what they are of. Raises ModelError where there are none."""
    from graftlab.exports.parity.rows import data_of, training_rows

    try:
        rows = training_rows(trained, trained.load_tokenizer(), count)
        files, _ = data_of(trained).files()
    except (GraftlabError, OSError) as error:
        raise ModelError(
            f"target.imatrix_rows={count} needs training rows of the run: "
            f"{str(error).rstrip('.')}. target.imatrix_rows=0 does without."
        ) from error
    return rows, ", ".join(sorted({file.name for file in files}))


def write_importance(draft: Draft, folder: Path, *, count: int, strength: float) -> None:
    """Answer training rows with base and adapter, in fp32, and write what came in where."""
    rows, origin = asked_rows(draft.model.trained, count)
    sums = {
        place: torch.zeros(draft.model.shapes[name][1], dtype=torch.float64)
        for name, place in draft.names.items()
        if place.startswith("blk.") and len(draft.model.shapes[name]) == 2
    }
    _watch_inputs(draft, rows, sums, strength)
    tokens = sum(map(len, rows))
    if absent := [
        place for place, total in sums.items() if not (total.isfinite() & total.any()).all()
    ]:
        raise ModelError(
            f"nothing that can be counted comes into {absent[0]}: target.imatrix_rows=0 does "
            "without an importance matrix."
        )
    arrays: dict[str, np.ndarray] = {}
    for place, total in sums.items():
        arrays[place + SUM] = total.float().numpy()[None]
        arrays[place + COUNT] = np.full((1, 1), tokens, np.float32)
    metadata = {
        "general.architecture": draft.header.architecture,
        "general.type": "imatrix",
        "imatrix.datasets": [origin],
        "imatrix.chunk_count": len(rows),
        "imatrix.chunk_size": max(map(len, rows)),
    }
    entries = {name: Entry("F32", array.shape) for name, array in arrays.items()}
    write_gguf(folder / FILE, metadata, entries, arrays.values())


@torch.no_grad()
def _watch_inputs(
    draft: Draft, rows: list[list[int]], sums: Mapping[str, Tensor], strength: float
) -> None:
    """Add the squares of what comes into each matrix of `sums`."""
    from graftlab.console import console
    from graftlab.exports.parity.reference import loaded
    from graftlab.models.hf_base import HFBase
    from graftlab.progress import Progress

    def adding(total: Tensor) -> Any:
        def add(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            total.add_(inputs[0].float().square().flatten(0, -2).sum(0))

        return add

    places = {name: sums[place] for name, place in draft.names.items() if place in sums}
    with (
        loaded(draft.model.trained) as (base, adapter),
        Progress("importance matrix", total=len(rows), console=console()) as progress,
    ):
        assert isinstance(base, HFBase), "as `merged` has it"
        for name, total in places.items():
            layer = base.model.get_submodule(name.removesuffix(".weight"))
            layer.register_forward_pre_hook(adding(total))
        with adapter.scaled(strength), base.plain():
            for ids in rows:
                base.model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=1)
                progress.advance(1)
