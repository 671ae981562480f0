"""What coremltools is asked: to convert what was traced, and what a package holds."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from graftlab.apple.exports import blob
from graftlab.apple.exports.whole import MASKED
from graftlab.errors import ModelError, listed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from graftlab.apple.exports.stateful import Stateful
    from graftlab.apple.exports.whole import Logits
    from graftlab.text.tokenizer import Tokenizer

WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
OURS = "graftlab"
"""The author of further items of a package, and the key of its metadata."""
SMALLEST = 2048
"""Tensors of up to so many elements (norms) keep their values."""
STATES = ("keys", "values")


def convert(model: Logits, *, length: int, bits: int) -> Any:
    """The Core ML model of `model`, ids to logits."""
    import coremltools as ct
    import numpy as np
    import torch

    ids = torch.ones((1, length), dtype=torch.int32)
    inputs = [ct.TensorType(name="ids", shape=(1, length), dtype=np.int32)]
    return _palettised(_converted(model, (ids,), inputs=inputs), bits)


def convert_stateful(graph: Stateful, *, chunk: int, contexts: Sequence[int], bits: int) -> Any:
    """The Core ML model of `graph`, whose inputs, states and output are named as there."""
    import coremltools as ct
    import numpy as np
    import torch

    graph.reset()
    shapes = mask_shapes(chunk, contexts)
    example = (
        torch.zeros((1, chunk), dtype=torch.int32),
        torch.zeros(1, dtype=torch.int32),
        torch.zeros(shapes[-1]),
    )
    mask = ct.EnumeratedShapes(shapes=shapes, default=shapes[0])
    inputs = [
        ct.TensorType(name="ids", shape=(1, chunk), dtype=np.int32),
        ct.TensorType(name="start", shape=(1,), dtype=np.int32),
        ct.TensorType(name="mask", shape=mask, dtype=np.float16),
    ]
    kept = ct.TensorType(shape=tuple(graph.keys.shape), dtype=np.float16)
    states = [ct.StateType(wrapped_type=kept, name=name) for name in STATES]
    return _palettised(_converted(graph, example, inputs=inputs, states=states), bits)


def mask_shapes(chunk: int, contexts: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes that a mask may have."""
    return [(1, 1, count, context) for context in contexts for count in (1, chunk)]


def _converted(model: nn.Module, example: tuple[Tensor, ...], **options: Any) -> Any:
    import coremltools as ct
    import torch

    logging.getLogger("coremltools").setLevel(logging.ERROR)  # it tells every constant it drops
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's notes on shapes that are constant here
        traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
        return ct.convert(
            traced,
            outputs=[ct.TensorType(name="logits")],
            minimum_deployment_target=ct.target.iOS18,
            skip_model_load=True,
            **options,
        )


def _palettised(package: Any, bits: int) -> Any:
    if bits == 16:
        return package
    import coremltools.optimize.coreml as optimise

    palette = optimise.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=SMALLEST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optimise.palettize_weights(
            package, optimise.OptimizationConfig(global_config=palette)
        )


def describe(
    package: Any,
    graph: Stateful,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    chunk: int,
    contexts: Sequence[int],
) -> None:
    """Save `package` as `folder`, with its tokenizer and how it is called."""
    from coremltools.libmodelpackage import ModelPackage

    call = {
        "inputs": {
            "ids": [1, chunk],
            "start": [1],
            "mask": [list(shape) for shape in mask_shapes(chunk, contexts)],
        },
        "states": {name: list(graph.keys.shape) for name in STATES},
        "outputs": {"logits": [1, "Q", int(graph.model.config.vocab_size)]},
        "chunk": chunk,
        "contexts": list(contexts),
        "masked": MASKED,
        "stop": list(tokenizer.stop_ids),
    }
    package.short_description = "A chat model that keeps keys and values as a state."
    package.user_defined_metadata[OURS] = json.dumps(call)
    package.save(str(folder))
    text = Template((files("graftlab.apple.exports") / "mlpackage.md").read_text("utf-8"))
    readme = text.substitute(
        name=folder.stem,
        chunk=chunk,
        masked=f"{MASKED:g}",
        contexts=", ".join(map(str, contexts)),
        most=contexts[-1],
        state=tuple(graph.keys.shape),
        vocabulary=graph.model.config.vocab_size,
        stop=", ".join(map(str, tokenizer.stop_ids)),
    )
    with tempfile.TemporaryDirectory() as made:
        items = {name: Path(made) / name for name in ("README.md", "call.json", "tokenizer")}
        items["README.md"].write_text(readme, encoding="utf-8")
        items["call.json"].write_text(json.dumps(call, indent=2) + "\n", encoding="utf-8")
        items["tokenizer"].mkdir()
        tokenizer.save(items["tokenizer"])
        held = ModelPackage(str(folder))  # writes its manifest when it is let go
        for name, path in items.items():
            held.addItem(str(path), name, OURS, "How to call it")
        del held


def compare_program(graph: Stateful, folder: Path, *, chunk: int, contexts: Sequence[int]) -> str:
    """What the program in `folder` is, its shapes and states compared. Raises ModelError."""
    spec = read_spec(folder)
    inputs = {one.name: one.type.multiArrayType for one in spec.description.input}
    states = {one.name: one.type.stateType.arrayType for one in spec.description.state}
    found = {
        "inputs": sorted(inputs),
        "mask": [tuple(one.shape) for one in inputs["mask"].enumeratedShapes.shapes],
        "states": {name: tuple(state.shape) for name, state in states.items()},
    }
    shape = tuple(graph.keys.shape)
    wanted = {
        "inputs": ["ids", "mask", "start"],
        "mask": mask_shapes(chunk, contexts),
        "states": dict.fromkeys(STATES, shape),
    }
    counts = Counter(operation.type for operation in operations_of(spec))
    writes = counts["write_state"]
    if found != wanted or writes < 2 * shape[0]:
        raise ModelError(
            f"{folder.name} was converted to another program: {found} and {writes} writes of its "
            f"state, where {wanted} and {2 * shape[0]} were to be. Nothing was kept."
        )
    counts.pop("const")
    sizes = " and ".join(map(str, contexts))
    size = 2 * 2 * graph.keys.numel() / 2**20
    return (
        f"{counts.total():,} operations; contexts of {sizes}; a state "
        f"of keys and values {shape}, {size:.0f} MiB"
    )


def compare_weights(
    model: nn.Module, folder: Path, tolerance: float, bits: int, *, every: bool
) -> str:
    """The weights in `folder` compared with those of `model`; with `every` one, none is absent.

    Raises ModelError.
    """
    import numpy as np

    parameters = dict(model.named_parameters(remove_duplicate=False))
    by_name = {name.replace(".", "_"): tensor for name, tensor in model.state_dict().items()}
    wanted = {name.replace(".", "_"): tensor for name, tensor in parameters.items()}
    worst, found, seen = 0.0, set(), set()
    for name, values, rounded in stored_weights(folder):
        if values.size <= SMALLEST:
            seen.add(values.tobytes())
        if name not in by_name or by_name[name].numel() != values.size:
            continue  # a constant that the converter made
        tensor = by_name[name].half().float().numpy().ravel()
        found.add(by_name[name].data_ptr())
        if not rounded and not np.array_equal(values, tensor):
            raise ModelError(f"{folder.name}: {name} was not read back as it was merged.")
        spread = float(tensor.std()) or 1.0
        worst = max(worst, float(((values - tensor) ** 2).mean() ** 0.5) / spread)
    absent = [
        name
        for name, tensor in wanted.items()
        if every
        and tensor.data_ptr() not in found
        and tensor.half().float().numpy().tobytes() not in seen  # equal ones are kept once
    ]
    if absent or not found or worst > tolerance:
        raise ModelError(
            f"{folder.name}: {len(found)} weights were found again, not {listed(absent, 3)}, the "
            f"worst off by {worst:.2f} standard deviations: {bits} bits should keep them within "
            f"{tolerance}."
        )
    if bits == 16:
        return f"{len(found)} weights in fp16, all read back equal"
    return f"{len(found)} weights in {bits} bits, read back within {worst:.3f} standard deviations"


def stored_weights(folder: Path) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Every weight in the file: its name in the model (dots as _), its values, flat, fp32, and
    whether they are those of a palette."""
    file = folder / WEIGHTS
    records = {record.place: record for record in blob.read(file)}
    for operation in operations_of(read_spec(folder)):
        if operation.type not in ("const", "constexpr_lut_to_dense"):
            continue
        name = operation.outputs[0].name.removesuffix("_palettized").removesuffix("_to_fp16")
        if operation.type == "constexpr_lut_to_dense":
            places = {
                key: operation.inputs[key].arguments[0].value.blobFileValue.offset
                for key in ("lut", "indices")
            }
            palette = blob.load(file, records[places["lut"]]).astype("float32")
            yield name, palette[blob.load_codes(file, records[places["indices"]])], True
            continue
        value = operation.attributes["val"]
        record = records.get(value.blobFileValue.offset)
        if value.HasField("blobFileValue") and record and record.dtype == blob.FP16:
            yield name, blob.load(file, record).astype("float32"), False


def read_spec(folder: Path) -> Any:
    """The model description of a package, a message of Core ML's format."""
    import coremltools as ct

    return ct.models.MLModel(str(folder), skip_model_load=True).get_spec()


def operations_of(spec: Any) -> Iterator[Any]:
    """The operations of a program, in order."""
    main = spec.mlProgram.functions["main"]
    yield from main.block_specializations[main.opset].operations
