"""How far each type of weights is from what was trained: what the gate finds, for a table.

Training's own code answers the held-out rows of the run once, in fp32, and then every export does
in its own runtime, as `graftlab export` has it (`exports/parity`). The bounds of the gate per type
are set from these numbers.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftlab.exports.parity.measure import Measured
    from graftlab.exports.runtimes.base import Runtime
    from graftlab.exports.source import Trained

QUANTS = ("f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
WEIGHED = ("q6_k", "q5_k_m", "q4_k_m", "q4_0")
REPLY = 1
"""Tokens of each greedy reply, which the table does not have."""
HEAD = (
    "| | bits a weight | MiB | written in, s | KL | of what the adapter moves | likeliest token | "
    "recovered gain |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
)


@dataclass(frozen=True)
class Case:
    """One export."""

    name: str
    write: Callable[[Path], tuple[Runtime, float]]
    """Fills a folder; what answers from it, and its bits a weight."""


def drift(
    run: str, folder: Path, *, rows: int, tokens: int, imatrix_rows: int, only: str = ""
) -> list[str]:
    """The rows of a table; `only` those whose name holds one of some words, with commas between."""
    import torch

    from graftlab.exports.parity.measure import measure
    from graftlab.exports.parity.reference import reference
    from graftlab.exports.parity.rows import rows_for
    from graftlab.exports.source import load

    torch.set_num_threads(1)
    adapter = load(run)
    trained = adapter.on_base
    assert trained is not None, f"the base of {run} is not here"
    tokenizer = trained.load_tokenizer()
    tokenizer.date = None
    asked = rows_for(trained, tokenizer, count=rows, tokens=tokens)
    said = reference(trained, tokenizer, asked.rows, scale=1.0, tokens=REPLY)
    lines = list(HEAD)
    for case in cases(adapter, folder, imatrix_rows):
        if only and not any(word in case.name for word in only.split(",")):
            continue
        place = folder / "out"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        start = time.process_time()
        runtime, bits = case.write(place)
        seconds = time.process_time() - start
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        with runtime.opened():
            found = measure(runtime, tokenizer, asked, said, tokens=REPLY)
        if len(lines) == len(HEAD):
            lines[:0] = [
                f"{found.positions} positions of {found.rows} {asked.origin}; the adapter moves "
                f"its base by {found.moved:.3f} nats (KL) and gains {found.gain:.3f} a token.",
                "",
            ]
            print("\n".join(lines))
        lines.append(shown(case.name, bits, size, seconds, found))
        print(lines[-1], flush=True)
    return lines


def shown(name: str, bits: float, size: int, seconds: float, found: Measured) -> str:
    recovered = "" if found.recovered is None else f"{found.recovered:.3f}"
    likeliest = 1 - found.differing / found.positions
    return (
        f"| {name} | {bits:.2f} | {size / 2**20:,.0f} | {seconds:.1f} | {found.kl:.2g} | "
        f"{found.kl / found.moved:.2%} | {likeliest:.1%} | {recovered} |"
    )


def cases(adapter: Trained, folder: Path, imatrix_rows: int) -> Iterator[Case]:
    from graftlab.exports.gguf.draft import draft
    from graftlab.exports.gguf.importance import FILE
    from graftlab.exports.gguf.inputs import write_importance
    from graftlab.exports.gguf.merging import merged

    for quant in QUANTS:
        yield Case(quant, lambda place, quant=quant: gguf(adapter, place, quant, None))
    if imatrix_rows:
        alone = draft(merged(adapter, 1.0, target="gguf"), "f32", name="drift")
        write_importance(alone, folder, count=imatrix_rows, strength=1.0)
        for quant in WEIGHED:
            name, file = f"{quant}, importance matrix", folder / FILE
            yield Case(name, lambda place, q=quant, file=file: gguf(adapter, place, q, file))
    yield Case("gguf-lora on base in f16", lambda place: gguf_lora(adapter, place, "f16"))
    yield Case("gguf-lora on base in q4_k_m", lambda place: gguf_lora(adapter, place, "q4_k_m"))
    if find_spec("mlx_lm") is not None and adapter.base is not None and adapter.base.is_dir():
        for bits in (8, 4):
            name = f"mlx, base in {bits} bits"
            yield Case(name, lambda place, bits=bits: mlx(adapter, place, bits))


def gguf(
    adapter: Trained, place: Path, quant: str, importance: Path | None
) -> tuple[Runtime, float]:
    from graftlab.exports.gguf.draft import draft
    from graftlab.exports.gguf.importance import read_importance
    from graftlab.exports.gguf.kinds import bits
    from graftlab.exports.gguf.merging import merged
    from graftlab.exports.gguf.program import write_draft
    from graftlab.exports.runtimes.llama_cpp import LlamaCpp

    made = draft(merged(adapter, 1.0, target="gguf"), quant, name="drift")
    if importance is not None:
        made = made.weighed(read_importance(importance))
    write_draft(made, place / "model.gguf")
    return LlamaCpp(place / "model.gguf"), bits(made.entries)


def gguf_lora(adapter: Trained, place: Path, base: str) -> tuple[Runtime, float]:
    from graftlab.exports.gguf.draft import draft
    from graftlab.exports.gguf.kinds import bits
    from graftlab.exports.gguf.merging import merged
    from graftlab.exports.gguf_lora import GGUFLora
    from graftlab.exports.runtimes.base import NotHere

    target = GGUFLora(base=base)
    target.write(adapter, place)
    runtime = target.runtime(adapter, place)
    assert not isinstance(runtime, NotHere), runtime.why
    return runtime, bits(draft(merged(adapter, 1.0, target="gguf"), base, name="drift").entries)


def mlx(adapter: Trained, place: Path, bits: int) -> tuple[Runtime, float]:
    from graftlab.exports.mlx import MLX
    from graftlab.exports.runtimes.base import NotHere

    target = MLX(with_base=True, bits=bits)
    target.write(adapter, place)
    runtime = target.runtime(adapter, place)
    assert not isinstance(runtime, NotHere), runtime.why
    return runtime, bits + 0.5  # a scale and an offset of 16 bits to 64 weights
