"""Replies per minute of an evaluation: ours, `transformers.generate`, and llama.cpp's server.

Prompts of 50 to 400 tokens, each answered greedily by the same number of tokens: by a base with an
adapter on it, as `graftlab evaluate` answers them; by the same module through `generate`, in the
batches that suit it best; and by llama.cpp's server with the adapter merged into an F16 file and as
many slots as prompts of ours are answered together. All read ids, so that nobody spends time on
templates; contestants take turns, and the median of the rounds counts.

Run as:
    python benchmarks/evaluate.py --model FOLDER
    python benchmarks/evaluate.py --model FOLDER --write    # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from arena import machine, precisions, publish
from transformers import GenerationConfig

from graftlab.adapters.artifact import trained_model
from graftlab.adapters.attach import load_trained
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.data.elevator import ElevatorData
from graftlab.exports.gguf.target import GGUF
from graftlab.exports.parity.spec import Parity
from graftlab.exports.runtimes.llama_cpp import Api
from graftlab.generation.decode import make_turn
from graftlab.generation.draw import Sampler
from graftlab.generation.loop import decode, left_padded
from graftlab.generation.sampling import Generation
from graftlab.models.base import Base
from graftlab.models.cache import acquire
from graftlab.models.hf import HFModel
from graftlab.registry import dump
from graftlab.training.precision import Precision, resolve
from graftlab.types import Conversation, Message
from graftlab.verbs.export import ExportSpec
from graftlab.verbs.export import run as export

Answer = Callable[[], None]


class Endless:
    """A tokenizer of ready ids without stop tokens: every reply is as long as the others."""

    stop_ids = ()

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        self.prompts = prompts

    def render(self, messages: Sequence[Message], **_: Any) -> list[int]:
        return list(self.prompts[int(messages[0].content)])


def prompts_of(model: HFModel, count: int, *, least: int = 50, most: int = 400) -> list[list[int]]:
    """Ids of prompts of `least` to `most` tokens, from the text of the embedded data."""
    rows = ElevatorData().load().train
    tokenizer = model.load_tokenizer()
    text = " ".join(message.content for row in rows for message in row.messages)
    (ids,) = tokenizer.encode_text([text])
    lengths = [least + (most - least) * place // max(1, count - 1) for place in range(count)]
    starts = [place * 37 % (len(ids) - most) for place in range(count)]
    return [ids[start : start + size] for start, size in zip(starts, lengths, strict=True)]


def trained(folder: Path, model: HFModel) -> Path:
    """A run folder with an adapter that says something."""
    with acquire(model, dtype=torch.float32, device=torch.device("cpu")) as base:
        adapter = attach(base, Lora(rank=16), seed=1, dtype=torch.float32)
        drawn = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for _, parameter in adapter.named_parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=drawn) * 0.02)
        adapter.save(folder / "adapter")
    model.load_tokenizer().save(folder / "adapter")
    config = yaml.safe_dump({"model": dump(model), "data": dump(ElevatorData())})
    (folder / "adapter" / "run.yaml").write_text(config, encoding="utf-8")
    return folder


@contextmanager
def spoken(run: Path, precision: str) -> Iterator[Base]:
    """The base with the adapter on it."""
    found = trained_model(str(run), None)
    device = torch.device("cpu")
    own = resolve(Precision(name="bf16-mixed" if precision == "bf16" else "fp32"), device)
    with acquire(found.model, dtype=own.base_dtype, device=device, widened=True) as base:
        load_trained(base, found, dtype=own.adapter_dtype)
        with own.autocast(), torch.no_grad():
            yield base


def ours(base: Base, prompts: Sequence[Sequence[int]], tokens: int, batch: int) -> None:
    """As evaluation asks: the longest first, at most so many together."""
    endless: Any = Endless(prompts)
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    sampler = Sampler(Generation(max_new_tokens=tokens), base.device)
    asks = [Conversation((Message("user", str(place)),)) for place in order]
    turns = [make_turn(base, endless, ask, sampler) for ask in asks]
    decode(base, turns, batch=batch)
    assert all(len(turn.ids) == tokens for turn in turns)


def theirs(base: Base, prompts: Sequence[Sequence[int]], tokens: int, batch: int) -> None:
    """The same module and order, through `generate`."""
    order = sorted(prompts, key=len, reverse=True)
    config = GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0
    )
    for start in range(0, len(order), batch):
        ids, padding = left_padded(order[start : start + batch])
        mask = (torch.arange(ids.shape[1]) >= padding[:, None]).long()
        with base.plain():
            out = base.model.generate(ids, attention_mask=mask, generation_config=config)
        assert out.shape[1] == ids.shape[1] + tokens


@contextmanager
def llama(file: Path, slots: int) -> Iterator[Api]:
    """llama.cpp's server as it comes, with so many slots."""
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path = str(file)
    asked.n_ctx, asked.n_parallel, asked.verbosity = 512 * slots, slots, -1
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(asked)
    try:
        yield Api(server.listening_address)
    finally:
        del server


def served(api: Api, prompts: Sequence[Sequence[int]], tokens: int, slots: int) -> None:
    def ask(ids: Sequence[int]) -> None:
        wanted = {"n_predict": tokens, "ignore_eos": True, "temperature": 0, "cache_prompt": False}
        said = api.ask("/completion", {"prompt": list(ids), **wanted})
        assert said["tokens_predicted"] == tokens

    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(ask, sorted(prompts, key=len, reverse=True)))


def seconds(answer: Answer, *, cpu: bool) -> float:
    """How long it takes, by the clock or by what the processor spends on this process."""
    clock = time.process_time if cpu else time.perf_counter
    start = clock()
    answer()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a model that GGUF can hold")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=64, help="of a reply")
    parser.add_argument("--batch", type=int, default=16, help="prompts together, and slots")
    parser.add_argument("--batches", default="8,16,60", help="that `generate` may choose from")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time: others use this machine"
    )
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    given = parser.parse_args()
    model = HFModel(path=given.model)
    prompts = prompts_of(model, given.prompts)
    times: dict[str, list[float]] = {}
    load: list[float] = []

    def measure(name: str, answer: Answer) -> None:
        load.append(os.getloadavg()[0])
        took = seconds(answer, cpu=given.cpu_time)
        times.setdefault(name, []).append(took)
        print(f"{name}: {took:.1f} s", flush=True)

    with TemporaryDirectory() as place:
        folder = trained(Path(place) / "run", model)
        merged = Path(place) / "gguf"
        target = GGUF(quant="f16")
        export(
            ExportSpec(adapter=str(folder), target=target, out=str(merged), parity=Parity(rows=0))
        )
        (file,) = merged.rglob("*.gguf")
        for _ in range(given.rounds):
            for precision in precisions():
                with spoken(folder, precision) as base:
                    ours(base, prompts[:2], 2, 2)  # whoever comes first pays for kernels
                    theirs(base, prompts[:2], 2, 2)
                    measure(
                        f"graftlab, {precision}",
                        partial(ours, base, prompts, given.tokens, given.batch),
                    )
                    for batch in map(int, given.batches.split(",")):
                        measure(
                            f"generate, {precision}, batch {batch}",
                            partial(theirs, base, prompts, given.tokens, batch),
                        )
            with llama(file, given.batch) as api:
                served(api, prompts[:2], 2, 2)
                measure("llama.cpp", partial(served, api, prompts, given.tokens, given.batch))
    publish(_lines(given, times, load), "evaluate.md", write=given.write)


def _lines(given: Any, times: dict[str, list[float]], load: Sequence[float]) -> list[str]:
    """The table, with what was to be reached."""
    rate = {name: 60 * given.prompts / median(took) for name, took in times.items()}
    reference = {
        precision: max(speed for name, speed in rate.items() if f"generate, {precision}" in name)
        for precision in precisions()
    }
    minute = "minute of processor time" if given.cpu_time else "minute"
    lines = [
        "# Replies per minute",
        "",
        f"{machine()} Threads: {torch.get_num_threads()}; {Path(given.model).name} with an adapter "
        f"of rank 16, {given.prompts} prompts of 50 to 400 tokens, {given.tokens} new tokens each, "
        f"greedy; {given.batch} prompts together and as many slots; medians of {given.rounds} "
        f"rounds in turn. Load of the machine meanwhile: {min(load):.1f} to {max(load):.1f}.",
        "",
        f"| | replies a {minute} | of `generate` in its best batch | of llama.cpp |",
        "|---|---:|---:|---:|",
    ]
    for name, speed in rate.items():
        own = next((p for p in reference if f", {p}" in name), None)
        against = f"{speed / reference[own]:.2f}" if own else "–"
        lines.append(f"| {name} | {speed:,.1f} | {against} | {speed / rate['llama.cpp']:.2f} |")
    lines.append("")
    for precision, speed in reference.items():
        ratio = rate[f"graftlab, {precision}"] / speed
        lines.append(f"{precision}: {_told(ratio, 2.0)} of `generate`.")
    fastest = max(rate[f"graftlab, {precision}"] for precision in reference)
    lines.append(f"The faster of both: {_told(fastest / rate['llama.cpp'], 0.7)} of llama.cpp.")
    return lines


def _told(ratio: float, wanted: float) -> str:
    return (
        f"{ratio:.2f} x, {'reached' if ratio >= wanted else 'missed'} ({wanted:g} x were wanted),"
    )


if __name__ == "__main__":
    main()
