"""`target=mlpackage`: a draft model for Core ML, its weights in 16 shades (4-bit k-means).

    NAME.mlpackage    ids (1, length) int32 -> logits (1, length, V) fp16

A causal model does not see later positions: shorter input is filled up at the end, and the row of
logits at the last real token is read. coremltools writes it, on Linux too; running it needs a Mac.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.apple.exports import blob
from graftlab.errors import ConfigError, ModelError, require_choice, require_range
from graftlab.exports.target import Target
from graftlab.registry import choice

if TYPE_CHECKING:
    import numpy as np

    from graftlab.apple.exports.whole import Logits
    from graftlab.exports.source import Trained

INSTALL = "pip install 'graftlab[coreml]'"
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
SMALLEST = 2048
"""Tensors of up to so many elements (norms) keep their values."""
TOLERANCE = {4: 0.2, 6: 0.06, 8: 0.03}
"""Bits -> the largest root mean square error, in standard deviations of the weights."""


@choice("mlpackage")
@dataclass(kw_only=True, slots=True)
class MLPackage(Target):
    """A Core ML package of a whole, small model."""

    suffix: ClassVar[str] = ".mlpackage"
    needs_name: ClassVar[bool] = True
    closed: ClassVar[bool] = True

    bits: int = 4
    """Bits of a weight: 4, 6 or 8."""
    length: int = 256
    """Tokens that one call reads."""

    def __post_init__(self) -> None:
        require_choice("target.bits", str(self.bits), [str(bits) for bits in TOLERANCE])
        require_range("target.length", self.length, least=2, most=4096)

    def check(self, adapter: Trained) -> list[str]:
        if adapter.whole is None:
            raise ModelError(
                f"{adapter.path} is an adapter, and target=mlpackage takes a whole model: the run "
                "of a draft, such as experiment=draft leaves, or a model folder."
            )
        try:
            import coremltools  # noqa: F401
            import sklearn  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"target=mlpackage needs coremltools: {INSTALL}") from error
        return [
            "it was converted and read back here, not run: Core ML runs on Apple's systems only"
        ]

    def write(self, adapter: Trained, folder: Path) -> None:
        from graftlab.apple.exports.whole import load_whole

        assert adapter.whole is not None
        model = load_whole(adapter.whole, length=self.length)
        convert(model, length=self.length, bits=self.bits).save(str(folder))

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        from graftlab.apple.exports.whole import load_whole

        assert adapter.whole is not None
        state = load_whole(adapter.whole, length=self.length).state_dict()
        by_name = {name.replace(".", "_"): tensor for name, tensor in state.items()}
        bits, worst, count = self.bits, 0.0, 0
        for name, values in palettised(folder):
            if name not in by_name or by_name[name].numel() != values.size:
                continue  # a constant that the converter made
            wanted = by_name[name].float().numpy().ravel()
            spread = float(wanted.std()) or 1.0
            worst = max(worst, float(((values - wanted) ** 2).mean() ** 0.5) / spread)
            count += 1
        if not count or worst > TOLERANCE[bits]:
            raise ModelError(
                f"{folder.name}: {count} weights were found again, the worst off by {worst:.2f} "
                f"standard deviations: {bits} bits should keep them within {TOLERANCE[bits]}."
            )
        return [f"{count} weights in {bits} bits, read back within {worst:.3f} standard deviations"]


def convert(model: Logits, *, length: int, bits: int) -> Any:
    """The palettised Core ML model of a traced `model`."""
    import coremltools as ct
    import coremltools.optimize.coreml as optimise
    import numpy as np
    import torch

    logging.getLogger("coremltools").setLevel(logging.WARNING)  # it tells every constant it drops
    ids = torch.ones((1, length), dtype=torch.int32)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's notes on shapes that are constant here
        traced = torch.jit.trace(model, ids, check_trace=False)  # type: ignore[no-untyped-call]
        package = ct.convert(
            traced,
            inputs=[ct.TensorType(name="ids", shape=(1, length), dtype=np.int32)],
            outputs=[ct.TensorType(name="logits")],
            minimum_deployment_target=ct.target.iOS18,
            skip_model_load=True,
        )
        palette = optimise.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=SMALLEST)
        config = optimise.OptimizationConfig(global_config=palette)
        return optimise.palettize_weights(package, config)


def palettised(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight with a palette: its name in the model (dots as _) and its values, flat, fp32."""
    import coremltools as ct

    records = {record.place: record for record in blob.read(folder / WEIGHTS)}
    spec = ct.models.MLModel(str(folder), skip_model_load=True).get_spec()
    main = spec.mlProgram.functions["main"]
    for operation in main.block_specializations[main.opset].operations:
        if operation.type != "constexpr_lut_to_dense":
            continue
        places = {
            key: operation.inputs[key].arguments[0].value.blobFileValue.offset
            for key in ("lut", "indices")
        }
        name = operation.outputs[0].name.removesuffix("_palettized").removesuffix("_to_fp16")
        file = folder / WEIGHTS
        palette = blob.load(file, records[places["lut"]]).astype("float32")
        yield name, palette[blob.load_codes(file, records[places["indices"]])]
