"""The base of `target=mlx` in a few bits, by mlx-lm's own quantisation; the adapter stays apart.

mlx's affine mode: groups of 64 weights of a row share a scale and an offset of 16 bits, which makes
4.5 bits a weight of 4. Layers, embedding and head are quantised where their rows divide by 64.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, ModelError
from graftlab.models.weights import read_json

CONFIG, GROUP, BITS = "config.json", 64, (4, 8)
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf")
"""How files end that hold the wide weights, which are not copied."""


def require_mlx() -> None:
    """Raise ConfigError with the install line where mlx-lm is missing."""
    try:
        import mlx_lm  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "target.bits quantises with mlx-lm, which is not installed: pip install "
            f"'graftlab[mlx]' ({error})."
        ) from error


def write_quantized(base: Path, config: dict[str, Any], folder: Path, bits: int) -> None:
    """Write the model in `base`, whose config as mlx reads it is `config`, into a new `folder`.

    Weights are read one by one. Raises ModelError where mlx-lm does not know the architecture.
    """
    from mlx_lm.utils import quantize_model, save_config, save_model

    model = _load(base, config)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its bits a weight
        model, quantized = quantize_model(model, config, GROUP, bits)
    save_model(folder, model)
    save_config(quantized, folder / CONFIG)
    for file in base.iterdir():
        if file.is_file() and file.name != CONFIG and not file.name.endswith(WEIGHTS):
            shutil.copyfile(file, folder / file.name)


def compare_quantized(base: Path, folder: Path) -> str:
    """What was written, read back: every weight within a step, and how far they are off.

    Raises ModelError for a tensor that is another.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    wide = dict(tree_flatten(_load(base, read_json(folder / CONFIG)).parameters()))
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(mx.load(str(file)))
    options = read_json(folder / CONFIG)["quantization"]
    error = norm = bits = 0.0
    weights = quantized = 0
    for name, wanted in wide.items():
        codes = found.pop(name)
        weights, bits = weights + wanted.size, bits + 8 * codes.nbytes
        scales = found.pop(f"{name.removesuffix('.weight')}.scales", None)
        if scales is None:
            if codes.shape != wanted.shape or not mx.array_equal(codes, wanted):
                raise ModelError(f"{folder.name}: {name} was not read back as it is in the base.")
            continue
        offsets = found.pop(f"{name.removesuffix('.weight')}.biases")
        bits += 8 * (scales.nbytes + offsets.nbytes)
        of = {key: options[key] for key in ("group_size", "bits")}
        apart = mx.dequantize(codes, scales, offsets, **of).astype(mx.float32)
        apart = (apart - wanted.astype(mx.float32)).reshape(*scales.shape, -1)
        # mlx clips by up to a step, and rounds scale, offset and product to the weights' own dtype.
        steps = mx.abs(scales.astype(mx.float32))[..., None]
        far = mx.abs(wanted.astype(mx.float32)).reshape(apart.shape).max(axis=-1, keepdims=True)
        if bool((mx.abs(apart) > steps + far * 2**-6).any()):
            raise ModelError(f"{folder.name}: {name} is further than a step from the base's.")
        error += float((apart**2).sum())
        norm += float((wanted.astype(mx.float32) ** 2).sum())
        quantized += 1
    if found or not quantized:
        raise ModelError(f"{folder.name} holds other tensors than the base: {sorted(found)[:3]}.")
    return (
        f"{quantized} of {len(wide)} tensors of the base in {bits / weights:.2f} bits a weight, "
        f"{(error / norm) ** 0.5:.1%} off; the adapter was trained on the wide ones"
    )


def _load(base: Path, config: dict[str, Any]) -> Any:
    """The model of mlx-lm, its weights not read yet. Raises ModelError."""
    from mlx_lm.utils import load_model

    asked = {"rope_theta": config["rope_theta"]} if "rope_theta" in config else {}
    try:
        return load_model(base, lazy=True, model_config=asked)[0]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"mlx-lm does not load {base}: {error}.") from error
