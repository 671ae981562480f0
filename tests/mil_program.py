"""A Core ML program computed by torch, operation by operation, from the package on disk.

It knows the operations that `target=mlpackage` is converted to, and no others: enough to ask a
package where Core ML is not. Arithmetic is in fp32, on the fp16 numbers of the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from graftlab.apple.exports import blob
from graftlab.apple.exports.coreml import WEIGHTS, operations_of, read_spec

FP16, INT32, BOOL, STRING = 10, 23, 1, 2
TYPES = {
    FP16: np.float16,
    11: np.float32,
    INT32: np.int32,
    21: np.int8,
    22: np.int16,
    31: np.uint8,
    32: np.uint16,
    BOOL: np.bool_,
}
"""Types of MIL by their numbers."""
ACTIVATIONS = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}


class Program:
    """A package, its constants read and its state zero."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.spec = folder, read_spec(folder)
        self.user_defined_metadata = dict(self.spec.description.metadata.userDefined)
        self.operations = [op for op in operations_of(self.spec) if op.type != "const"]
        self._records = {record.place: record for record in blob.read(folder / WEIGHTS)}
        self._constants = {
            op.outputs[0].name: self._value(op.attributes["val"])
            for op in operations_of(self.spec)
            if op.type == "const"
        }

    def make_state(self) -> dict[str, Tensor]:
        """As coremltools' `MLModel.make_state`."""
        kinds = {one.name: one.type.stateType.arrayType for one in self.spec.description.state}
        return {name: torch.zeros(tuple(kind.shape)) for name, kind in kinds.items()}

    def predict(
        self, inputs: Mapping[str, np.ndarray], state: dict[str, Tensor]
    ) -> dict[str, np.ndarray]:
        """As coremltools' `MLModel.predict`, shapes and types checked."""
        self._check(inputs)
        known: dict[str, Any] = dict(self._constants)
        known |= {name: _number(torch.from_numpy(value)) for name, value in inputs.items()}
        for op in self.operations:
            given = {
                key: [known[a.name] if a.name else self._value(a.value) for a in value.arguments]
                for key, value in op.inputs.items()
                if not (op.type.endswith("_state") and key == "input")
            }
            one = {key: values[0] for key, values in given.items()}
            if op.type == "read_state":
                result = state[op.inputs["input"].arguments[0].name]
            elif op.type == "write_state":
                state[op.inputs["input"].arguments[0].name] = one["data"]
                continue
            elif op.type == "concat":
                parts = [
                    value.reshape(-1) if value.ndim == 0 else value for value in given["values"]
                ]
                result = torch.cat(parts, int(one["axis"]))
            else:
                result = OPERATIONS[op.type](**one)
            known[op.outputs[0].name] = result
        return {"logits": known["logits"].numpy()}

    def _check(self, inputs: Mapping[str, np.ndarray]) -> None:
        for one in self.spec.description.input:
            kind, value = one.type.multiArrayType, inputs[one.name]
            shapes = [tuple(s.shape) for s in kind.enumeratedShapes.shapes] or [tuple(kind.shape)]
            assert value.shape in shapes, f"{one.name} {value.shape}, not of {shapes}"
            assert value.dtype == (np.float16 if one.name == "mask" else np.int32), one.name

    def _value(self, value: Any) -> Any:
        kind = value.type.tensorType
        shape = tuple(dimension.constant.size for dimension in kind.dimensions)
        if value.HasField("blobFileValue"):
            record = self._records[value.blobFileValue.offset]
            raw = np.fromfile(
                self.folder / WEIGHTS, TYPES[kind.dataType], record.elements, offset=record.offset
            )
            return _number(torch.from_numpy(raw.reshape(shape)))
        tensor = value.immediateValue.tensor
        values = getattr(tensor, tensor.WhichOneof("value")).values
        if kind.dataType == STRING:
            return values[0]
        dtype = TYPES[kind.dataType]
        array = np.frombuffer(values, dtype) if isinstance(values, bytes) else np.array(values)
        return _number(torch.from_numpy(array.astype(dtype).reshape(shape)))


def _number(tensor: Tensor) -> Tensor:
    """In the types that are computed in: fp32, int64, bool."""
    if tensor.is_floating_point():
        return tensor.float()
    return tensor if tensor.dtype == torch.bool else tensor.long()


def _cast(x: Tensor, dtype: str) -> Tensor:
    return _number(x) if dtype.startswith(("int", "uint")) else x.float()


def _gather(x: Tensor, indices: Tensor, axis: Tensor, batch_dims: Tensor, **_: Any) -> Tensor:
    assert not int(batch_dims)
    axis_ = int(axis)
    found = x.index_select(axis_, indices.reshape(-1))
    return found.reshape((*x.shape[:axis_], *indices.shape, *x.shape[axis_ + 1 :]))


def _places(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> tuple[slice | int, ...]:
    assert stride is None or bool((stride == 1).all())
    found: list[slice | int] = []
    for axis in range(x.ndim):
        first = None if begin_mask is not None and begin_mask[axis] else int(begin[axis])
        last = None if end_mask is not None and end_mask[axis] else int(end[axis])
        if squeeze_mask is not None and squeeze_mask[axis]:
            found.append(first or 0)
        else:
            found.append(slice(first, last))
    return tuple(found)


def _slice_update(x: Tensor, update: Tensor, **places: Any) -> Tensor:
    changed = x.clone()
    place = _places(x, **places)
    assert changed[place].shape == update.shape, "a write reaches past the end of the state"
    changed[place] = update
    return changed


def _expand(x: Tensor, axes: Tensor) -> Tensor:
    for axis in sorted(axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Tensor) -> Tensor:
    return x.squeeze(tuple(axes.tolist()))


def _reshape(x: Tensor, shape: Tensor, **_: Any) -> Tensor:
    wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())]
    return x.reshape(wanted)


OPERATIONS: dict[str, Any] = {
    "abs": lambda x: x.abs(),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "rsqrt": lambda x, epsilon: torch.rsqrt(x + epsilon),
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "cast": _cast,
    "silu": lambda x: functional.silu(x),
    "gelu": lambda x, mode: functional.gelu(x, approximate=ACTIVATIONS[mode]),
    "shape": lambda x: torch.tensor(x.shape),
    "gather": _gather,
    "tile": lambda x, reps: x.repeat(*reps.tolist()),
    "expand_dims": _expand,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "transpose": lambda x, perm: x.permute(*perm.tolist()),
    "slice_by_index": lambda x, **places: x[_places(x, **places)],
    "slice_update": _slice_update,
    "reduce_max": lambda x, axes, keep_dims: x.amax(axes.tolist(), bool(keep_dims)),
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes.tolist(), bool(keep_dims)),
    "linear": lambda x, weight, bias=None: functional.linear(x, weight, bias),
    "scaled_dot_product_attention": lambda query, key, value, attn_mask: (
        functional.scaled_dot_product_attention(query, key, value, attn_mask)
    ),
}
"""What each operation does."""
