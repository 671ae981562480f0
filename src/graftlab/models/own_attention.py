"""Which models attend in a way of their own, that packed rows do not know.

    sinks       a learnt score per head that takes part in every softmax (gpt-oss, MiMo)
    layer kinds chunks, indexers, compressed keys (Llama 4, DeepSeek V3.2 and V4, GLM 5)

Told from config.json and the tensors' names alone. Such a model computes each document by itself,
in the attention that transformers gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from graftlab.types import PACKABLE

_SINKS = re.compile(r"\.(\w*sinks?\w*|softmax_offset)$")


def own_attention(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """What is its own in this model's attention; None where rows can be packed.

    `config` is the text model's, `names` are those of its tensors.
    """
    kinds = config.get("layer_types")
    foreign = sorted(set(kinds) - PACKABLE) if isinstance(kinds, list) else []
    if foreign:
        return f"its {', '.join(foreign)} layers attend in a way of their own"
    if any(_SINKS.search(name) for name in names):
        return "its attention has sinks"
    return None
