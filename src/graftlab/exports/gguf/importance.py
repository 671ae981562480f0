"""The importance matrix: how much each column of a matrix matters where its values are rounded.

    imatrix.gguf    blk.N.attn_q.weight.in_sum2 (1, in), ....counts (1, 1), in fp32

A column's error is multiplied by what comes in there: so the mean of its squared inputs, over rows
of the training data, weighs the error when llama.cpp chooses a block's scale. As its own
llama-imatrix does, matrices of the layers alone are looked at, not embedding and head; the file is
one that its llama-quantize reads with --imatrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FILE = "imatrix.gguf"
SUM, COUNT = ".in_sum2", ".counts"


@dataclass(frozen=True, slots=True)
class Importance:
    """Means of squared inputs."""

    squares: Mapping[str, np.ndarray]
    """(in,) by the matrix's name in the file, in fp32."""
    rows: int
    tokens: int
    origin: str
    """What the rows are of, without folders."""

    def metadata(self) -> dict[str, Any]:
        """What llama.cpp's llama-quantize writes into a file of it."""
        return {
            "quantize.imatrix.file": FILE,
            "quantize.imatrix.dataset": self.origin,
            "quantize.imatrix.entries_count": len(self.squares),
            "quantize.imatrix.chunks_count": self.rows,
        }

    def __str__(self) -> str:
        return (
            f"importance matrix of {len(self.squares)} matrices, from {self.tokens:,} tokens of "
            f"{self.rows} training rows ({self.origin})"
        )


def read_importance(file: Path) -> Importance:
    """What `inputs.write_importance` wrote. Raises ModelError for a damaged file."""
    from graftlab.models.gguf.file import map_file, read_gguf

    found, data = read_gguf(file), map_file(file)

    def values(name: str) -> np.ndarray:
        entry = found.tensors[name]
        piece = data[entry.offset : entry.offset + entry.num_bytes]
        return np.array(piece.view(np.float32))

    places = [name.removesuffix(SUM) for name in found.tensors if name.endswith(SUM)]
    counts = {place: float(values(place + COUNT)[0]) for place in places}
    squares = {place: values(place + SUM) / np.float32(counts[place]) for place in places}
    rows = int(found.metadata["imatrix.chunk_count"])
    origin = str(found.metadata["imatrix.datasets"][0])
    return Importance(squares, rows, int(counts[places[0]]), origin)
