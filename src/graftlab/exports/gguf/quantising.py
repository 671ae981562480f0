"""Values become blocks: by llama.cpp's own quantiser, which the wheel of xllamacpp brings along.

Types that are numbers are torch's own, and q8_0 is gguf-py's where the wheel is missing. For other
types there is llama-quantize on the PATH then (`program`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, ModelError
from graftlab.exports.gguf.kinds import FLOATS
from graftlab.exports.gguf.writing import INSTALL
from graftlab.models.gguf.file import KINDS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SYMBOL, PROGRAM = "ggml_quantize_chunk", "llama-quantize"
PIECE = 2**22
"""Values that one call quantises."""
_NUMBERS = {name: number for number, (name, *_) in KINDS.items()}
_SIZES = {name: (block, num_bytes) for name, block, num_bytes in KINDS.values()}


def require_quantiser(kinds: set[str]) -> None:
    """Raise ConfigError where types are wanted that nothing here can make."""
    if not made_here(kinds) and which(PROGRAM) is None:
        raise ConfigError(
            f"these types are made by llama.cpp's own quantiser, which xllamacpp brings: {INSTALL}."
            f" {PROGRAM} on the PATH makes them as well, and target.quant=q8_0 and f16 do without."
        )


def made_here(kinds: set[str]) -> bool:
    """Whether `quantised` makes all of them."""
    return not kinds - {*FLOATS, "Q8_0"} or _library() is not None


def quantised(
    name: str, values: Tensor, kind: str, importance: np.ndarray | None = None
) -> np.ndarray:
    """The bytes of a tensor, in fp32 on the CPU, as a file holds them.

    `importance`, one fp32 value a column, weighs its errors in types of six bits and fewer. Raises
    ModelError naming one with values that are none, or do not fit the type.
    """
    import torch

    from graftlab.models.gguf.blocks import PLAIN

    values = values.contiguous()
    if kind in PLAIN:
        made = values.to(PLAIN[kind])
        _require_finite(name, values, made, kind)
        plain: np.ndarray = made.view(torch.uint8).reshape(-1).numpy()
        return plain
    _require_finite(name, values, values, kind)
    function = _library()
    if function is None:
        return _by_gguf_py(values.numpy(), kind)
    return _by_llama_cpp(function, values.numpy(), kind, importance)


def _by_llama_cpp(
    function: Any, values: np.ndarray, kind: str, importance: np.ndarray | None
) -> np.ndarray:
    import numpy as np
    import torch

    rows, width = values.shape
    block, num_bytes = _SIZES[kind]
    row = width // block * num_bytes
    made = np.empty(rows * row, np.uint8)
    step = max(1, PIECE // width)
    assert importance is None or (importance.dtype.name, importance.shape) == ("float32", (width,))
    weights = None if importance is None else importance.ctypes.data

    def piece(start: int) -> int:
        count = min(step, rows - start)
        return int(
            function(
                *(_NUMBERS[kind], values.ctypes.data, made.ctypes.data, start * width),
                *(count, width, weights),
            )
        )

    function(_NUMBERS[kind], values.ctypes.data, made.ctypes.data, 0, 0, width, None)  # its tables
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        written = sum(pool.map(piece, range(0, rows, step)))
    assert written == made.nbytes, f"{written} bytes of {kind}, not {made.nbytes}"
    return made


def _by_gguf_py(values: np.ndarray, kind: str) -> np.ndarray:
    import gguf

    made: np.ndarray = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    return made.reshape(-1)


@cache
def _library() -> Callable[..., int] | None:
    """llama.cpp's function; None where there is no wheel that has it."""
    found = find_spec("xllamacpp")
    places = (found.submodule_search_locations or []) if found else []
    for file in (f for place in places for f in sorted(Path(place).glob("xllamacpp*.*"))):
        if file.suffix in (".so", ".pyd", ".dylib"):
            function = getattr(ctypes.CDLL(str(file)), SYMBOL, None)
            if function is None:
                continue
            whole, address = ctypes.c_int64, ctypes.c_void_p
            function.restype = ctypes.c_size_t
            function.argtypes = [ctypes.c_int, address, address, whole, whole, whole, address]
            return function  # type: ignore[no-any-return]
    return None


def _require_finite(name: str, values: Tensor, made: Tensor, kind: str) -> None:
    if made.isfinite().all():
        return
    if not values.isfinite().all():
        raise ModelError(f"{name} holds values that are no numbers: the base is damaged.")
    raise ModelError(
        f"{name} holds values that do not fit {kind}, which goes up to 65,504: take "
        "target.quant=bf16 or f32."
    )
