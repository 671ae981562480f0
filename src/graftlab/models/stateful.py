"""Which layers of a model carry state along the row: recurrences, convolutions, linear attention.

    attention   a document is kept apart from others in its row by a mask
    state       h[t] = f(h[t - 1], x[t]): what a document leaves behind reaches the next one

Told from config.json and the tensors' names and shapes alone, so that nothing has to be loaded:
mixers of Mamba (arXiv 2312.00752, 2405.21060) and gated delta nets (2412.06464) have an `A_log`,
short convolutions a weight of three dimensions, and other kinds are named in the config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graftlab.types import STATEFUL

LISTS = ("layer_types", "layers_block_type", "block_types", "attn_type_list")

_TENSOR = re.compile(r"(?:.*?\.)?\d+\.(?:.+\.)?(\w+)\.(\w+)")
_CONVOLUTION = re.compile(r"conv")

Shapes = Mapping[str, tuple[int, ...]]


def stateful_layers(config: Mapping[str, Any], shapes: Shapes) -> list[str]:
    """Kinds of the layers that carry state, sorted; [] for a model of attention alone.

    `config` is the text model's, `shapes` gives tensors by name. Where the config names no kinds,
    as those of Falcon-H1 and Jamba, they are called by what their tensors are.
    """
    named = {kind for key in LISTS for kind in _names(config.get(key)) if kind in STATEFUL}
    return sorted(named) if named else sorted(_by_tensors(shapes))


def _names(found: Any) -> list[str]:
    return [kind for kind in found if isinstance(kind, str)] if isinstance(found, list) else []


def _by_tensors(shapes: Shapes) -> set[str]:
    kinds = set()
    for name, shape in shapes.items():
        parts = _TENSOR.fullmatch(name)
        if parts is None:
            continue
        module, leaf = parts.groups()
        if leaf == "A_log":
            kinds.add("linear_attention")
        elif leaf == "weight" and len(shape) == 3 and _CONVOLUTION.search(module):
            kinds.add("conv")
    return kinds
