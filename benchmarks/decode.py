"""Tokens per second of one prompt and of many: ours, `transformers.generate`, and llama.cpp.

A base with an adapter on it answers short prompts greedily; `generate` takes the same module, in
the batch that suits it best, and llama.cpp a file with the adapter merged, with as many slots as
there are prompts. Contestants take turns, and the median of the rounds counts.

Run as:
    python benchmarks/decode.py --model FOLDER
    python benchmarks/decode.py --model FOLDER --write    # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from arena import machine, publish
from evaluate import llama, ours, prompts_of, seconds, served, spoken, theirs, trained

from graftlab.exports.gguf.target import GGUF
from graftlab.exports.parity.spec import Parity
from graftlab.models.hf import HFModel
from graftlab.verbs.export import ExportSpec
from graftlab.verbs.export import run as export

FILES = ("f32", "f16")
"""Types of llama.cpp's weights."""
GOALS = {1: (2.5, 0.7), 32: (3.0, 0.8)}
"""Prompts -> what is wanted of `generate` and of llama.cpp at the same precision."""


def merged(run: Path, place: Path, quant: str) -> Path:
    """The GGUF file of a run."""
    target, out = GGUF(quant=quant), place / quant
    export(ExportSpec(adapter=str(run), target=target, out=str(out), parity=Parity(rows=0)))
    (file,) = out.rglob("*.gguf")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a model that GGUF can hold")
    parser.add_argument("--prompts", default="1,32", help="numbers of them, of 1 and 32")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply")
    parser.add_argument("--batches", default="16,32", help="that `generate` may choose from")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time: others use this machine"
    )
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    given = parser.parse_args()
    model = HFModel(path=given.model)
    times: dict[tuple[int, str], list[float]] = {}
    load: list[float] = []

    def measure(count: int, name: str, answer: Callable[[], None]) -> None:
        load.append(os.getloadavg()[0])
        took = seconds(answer, cpu=given.cpu_time)
        times.setdefault((count, name), []).append(took)
        print(f"{count} prompts, {name}: {took:.1f} s", flush=True)

    with TemporaryDirectory() as place:
        run = trained(Path(place) / "run", model)
        files = {quant: merged(run, Path(place), quant) for quant in FILES}
        for _ in range(given.rounds):
            for count in map(int, given.prompts.split(",")):
                prompts = prompts_of(model, count, least=16, most=48)
                with spoken(run, "fp32") as base:
                    for warm in (ours, theirs):
                        warm(base, prompts[:2], 2, 2)
                    measure(count, "graftlab", partial(ours, base, prompts, given.tokens, count))
                    for batch in [1] if count == 1 else map(int, given.batches.split(",")):
                        measure(
                            count,
                            f"generate, batch {batch}",
                            partial(theirs, base, prompts, given.tokens, batch),
                        )
                for quant, file in files.items():
                    with llama(file, count) as api:
                        served(api, prompts[:2], 2, 2)
                        measure(
                            count,
                            f"llama.cpp, {quant.upper()}",
                            partial(served, api, prompts, given.tokens, count),
                        )
    publish(_lines(given, times, load), "decode.md", write=given.write)


def _lines(given: Any, times: dict[tuple[int, str], list[float]], load: list[float]) -> list[str]:
    """A table for each number of prompts, with what was to be reached."""
    second = "second of processor time" if given.cpu_time else "second"
    lines = [
        "# Decoding",
        "",
        f"{machine()} Threads: {torch.get_num_threads()}; {Path(given.model).name} in fp32 with an "
        f"adapter of rank 16, prompts of 16 to 48 tokens, {given.tokens} new tokens each, greedy; "
        f"medians of {given.rounds} rounds in turn. Load of the machine meanwhile: "
        f"{min(load):.1f} to {max(load):.1f}.",
    ]
    for count, (of_generate, of_llama) in GOALS.items():
        took = {name: median(t) for (number, name), t in times.items() if number == count}
        if not took:
            continue
        best = min(time for name, time in took.items() if name.startswith("generate"))
        lines += [
            "",
            f"| {count} prompts | tokens a {second} | of `generate` in its best batch |",
            "|---|---:|---:|",
        ]
        lines += [
            f"| {name} | {count * given.tokens / time:,.1f} | {best / time:.2f} |"
            for name, time in took.items()
        ]
        lines += [
            "",
            f"{best / took['graftlab']:.2f} x `generate` ({of_generate:g} were wanted), "
            f"{took['llama.cpp, F32'] / took['graftlab']:.2f} x llama.cpp in F32 ({of_llama:g}).",
        ]
    return lines


if __name__ == "__main__":
    main()
