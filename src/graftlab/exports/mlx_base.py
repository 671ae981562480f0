"""The base as mlx-lm loads it: Apple's model as `afm7`, a Hugging Face folder with what mlx reads.

transformers 5 writes `rope_theta` inside `rope_parameters` alone, where mlx-lm does not look: the
model then turns its positions by another angle and answers nonsense without an error.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.exports import afm7
from graftlab.exports.source import described
from graftlab.exports.target import compare, save_tensors
from graftlab.models.weights import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.source import Trained

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def check(adapter: Trained) -> None:
    """Raise ModelError unless the base can be written."""
    from graftlab.apple.files import find_assets

    assert adapter.base is not None
    if adapter.is_afm:
        find_assets(adapter.base)
    else:
        read_json(adapter.base / CONFIG)


def notes(adapter: Trained) -> list[str]:
    """What has to be done to the base's own folder before mlx-lm reads it right."""
    if adapter.is_afm or adapter.base is None or not (adapter.base / CONFIG).is_file():
        return []
    config = read_json(adapter.base / CONFIG)
    if _mended(config) == config:
        return []
    return [
        f"mlx-lm reads rope_theta only at the top level of {adapter.base / CONFIG}, where it is "
        "not: with_base=true writes a base that has it there"
    ]


def write(adapter: Trained, folder: Path) -> None:
    """Write the base into `folder`, which is made."""
    assert adapter.base is not None
    folder.mkdir()
    if adapter.is_afm:
        config = afm7.base_config(described(adapter.base) or {})
        save_tensors(_afm_weights(adapter.base), folder / WEIGHTS, library="mlx")
    else:
        config = _mended(read_json(adapter.base / CONFIG))
        for file in adapter.base.iterdir():
            if file.is_file() and file.name != CONFIG:
                shutil.copyfile(file, folder / file.name)
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def verify(adapter: Trained, folder: Path) -> list[str]:
    """Read back what was written and compare. Raises ModelError."""
    import filecmp

    from safetensors.torch import load_file

    assert adapter.base is not None
    if adapter.is_afm:
        found, wanted = load_file(folder / WEIGHTS), _afm_weights(adapter.base)
        if found.keys() != wanted.keys():
            raise ModelError(f"{folder / WEIGHTS} holds other tensors than were written.")
        count = compare(((n, found[n], t) for n, t in wanted.items()), folder)
        return [f"{count} tensors of the base read back equal"]
    names = [f.name for f in adapter.base.iterdir() if f.is_file() and f.name != CONFIG]
    _, different, absent = filecmp.cmpfiles(adapter.base, folder, names, shallow=False)
    if different or absent:
        raise ModelError(f"{folder} is no true copy of the base: {[*different, *absent][:3]}.")
    return [f"{len(names)} files of the base read back equal"]


def _afm_weights(base: Path) -> dict[str, Tensor]:
    from graftlab.apple.files import find_assets, read_weights

    state = read_weights(find_assets(base).weights)
    return {name: tensor.contiguous() for name, tensor in afm7.base_weights(state)}


def _mended(config: dict[str, Any]) -> dict[str, Any]:
    parameters = config.get("rope_parameters")
    theta = parameters.get("rope_theta") if isinstance(parameters, dict) else None
    return config if theta is None or "rope_theta" in config else {**config, "rope_theta": theta}
