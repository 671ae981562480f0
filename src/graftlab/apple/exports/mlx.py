"""Apple's model in mlx-lm: an adapter for its `afm7`, and the base under it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.apple.exports import afm7
from graftlab.apple.exports.source import TrainedAFM, described
from graftlab.exports.mlx import InMLX, in_mlx
from graftlab.exports.mlx_base import CONFIG, WEIGHTS, MLXBase, base_in_mlx
from graftlab.exports.target import compare_file, save_tensors, write_config

if TYPE_CHECKING:
    from torch import Tensor

HOW = "load it with graftlab.exports.mlx.load_adapter: mlx-lm's own refuses it"


@in_mlx.register
def _(adapter: TrainedAFM) -> InMLX:
    # tamm keeps both matrices transposed, and so does MLX.
    state = {afm7.adapter_name(name): tensor.contiguous() for name, tensor in adapter.state.items()}
    keys = {afm7.adapter_key(name) for name in adapter.state}
    return InMLX(state, keys, notes=(HOW,))


class AFM7Base(MLXBase):
    """Apple's model as `afm7`."""

    def check(self) -> None:
        from graftlab.apple.files import find_assets

        find_assets(self.folder)

    def notes(self) -> list[str]:
        return []

    def write(self, folder: Path) -> None:
        folder.mkdir()
        save_tensors(self._weights(), folder / WEIGHTS, library="mlx")
        write_config(folder / CONFIG, afm7.base_config(described(self.folder) or {}))

    def verify(self, folder: Path) -> list[str]:
        count = compare_file(folder / WEIGHTS, self._weights())
        return [f"{count} tensors of the base read back equal"]

    def _weights(self) -> dict[str, Tensor]:
        from graftlab.apple.files import find_assets, read_weights

        state = read_weights(find_assets(self.folder).weights)
        return {name: tensor.contiguous() for name, tensor in afm7.base_weights(state)}


@base_in_mlx.register
def _(adapter: TrainedAFM) -> MLXBase | None:
    return AFM7Base(adapter.base) if adapter.base else None
