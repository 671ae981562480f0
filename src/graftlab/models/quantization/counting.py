"""Which weights would be stored as codes, told by names and shapes alone; no weight is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from graftlab.errors import ModelError
from graftlab.models.quantization.base import Codes, Quantization

IN_LAYER = re.compile(r"(?:.*\.)?\d+\..+\.weight")
HEAD = re.compile(r"(?:.*\.)?(?:lm_head|embed_out)\.weight")


def require_dense(name: str, tensors: Iterable[str], quantization: Quantization) -> None:
    """Raise ModelError for a mixture of experts, whose experts are no matrices of their own."""
    experts = next((tensor for tensor in tensors if ".experts." in tensor), None)
    if quantization.title and experts is not None:
        raise ModelError(
            f"{name} is a mixture of experts ({experts}), which transformers keeps as one tensor "
            f"for all, and quantization={quantization.title} stores matrices. Leave it out."
        )


def coded_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Name -> (out, in) of the decoder layers' matrices."""
    return {
        name: (shape[0], shape[1])
        for name, shape in shapes.items()
        if len(shape) == 2 and IN_LAYER.fullmatch(name)
    }


def coded_names(shapes: Mapping[str, tuple[int, ...]], choice: Codes) -> set[str]:
    """Names of the matrices that `choice` stores as codes."""
    heads = {name for name, shape in shapes.items() if HEAD.fullmatch(name) and len(shape) == 2}
    return set(coded_shapes(shapes)) | (heads if choice.head else set())


def head_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int] | None:
    """(out, in) of a head that is not the embedding."""
    found = next((shape for name, shape in shapes.items() if HEAD.fullmatch(name)), None)
    return (found[0], found[1]) if found is not None else None
