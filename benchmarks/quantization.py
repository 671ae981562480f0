"""What a base in four or eight bits costs: its answers, its memory, its speed on a processor.

    answers     the stored base against the one in fp32, at every position of some conversations:
                KL(full || stored) in nats, how often another token is the likeliest, and the loss
    loading     what the weights take, and the most that loading takes beyond what stays
    training    packed rows of at most 1,024 tokens, LoRA on all projections; peak of the process
    sampling    one token at a time, greedy

Every run of the last three is a process of its own with one thread, timed in processor time.

Run as:
    python benchmarks/quantization.py                              # the embedded base
    python benchmarks/quantization.py --model DIR --data FILE      # a model folder, chats of yours
    python benchmarks/quantization.py --model DIR --write          # keep it in benchmarks/results/
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

from arena import SOURCE, machine, publish, shown

STORED = {
    "none": ["quantization=none"],
    "int8": ["quantization=int8"],
    "nf4": ["quantization=nf4"],
    "nf4, double": ["quantization=nf4", "quantization.double=true"],
}
WORKS = ("loading", "training", "sampling")
PRECISIONS = ("fp32", "bf16-mixed")
QUESTION = "Present this track. title: Salt Road; artist: Petra Novak; tempo: 74 BPM"
MIB = 2**20


def words(stored: str, model: str) -> list[str]:
    """The words of a command line for a base."""
    from graftlab.cli.overrides import read_arguments

    given = ["model=tiny"] if model == "tiny" else ["model=hf", f"model.path={model}"]
    return [word.hydra for word in read_arguments([*given, *STORED[stored]], "train")]


def spec_of(stored: str, model: str, *others: str) -> Any:
    from graftlab.cli.compose import build, compose

    return build(compose("train", [*words(stored, model), *others, "run_dir=run"])).training()


def answers(model: str, data: str | None, limit: int) -> dict[str, dict[str, float]]:
    """Storage -> what of its answers changed."""
    import torch
    from torch.nn import functional

    chosen = [] if data is None else ["data=jsonl", f"data.train={data}", "data.valid_fraction=0"]
    spec = spec_of("none", model, *chosen, f"data.limit={limit}")
    tokenizer = spec.model.load_tokenizer()
    rows = []
    for conversation in spec.data.load(reserved=tokenizer.reserved).train[:limit]:
        ids = tokenizer.render(conversation.messages, generation_prompt=False)
        rows.append(torch.tensor([ids[:512]]))
    found: dict[str, dict[str, float]] = {}
    wanted: list[Any] = []
    with torch.no_grad():
        for stored in STORED:
            model_spec = spec_of(stored, model).model
            base = model_spec.load(dtype=torch.float32, device=torch.device("cpu"))
            told = [torch.log_softmax(base.own_logits(row)[0], -1) for row in rows]
            wanted = wanted or told
            pairs = list(zip(wanted, told, strict=True))
            positions = sum(len(each) for each in told)
            kl = sum(float((a.exp() * (a - b)).sum()) for a, b in pairs) / positions
            other = sum(int((a.argmax(-1) != b.argmax(-1)).sum()) for a, b in pairs) / positions
            losses = [
                functional.nll_loss(t[:-1], r[0, 1:], reduction="sum")
                for t, r in zip(told, rows, strict=True)
            ]
            loss = float(sum(losses)) / (positions - len(rows))
            found[stored] = {"kl": kl, "other": other, "loss": loss, "positions": positions}
            print(f"  answers: {stored}: {found[stored]}", flush=True)
    return found


@contextmanager
def peak_of_own_memory() -> Iterator[list[float]]:
    """The most that the process holds inside in pages of its own, in MiB beyond the start."""
    found, done = [0.0], Event()

    def own() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(float(x.split()[1]) for x in lines if x.startswith("RssAnon")) / 1024

    def watch() -> None:
        while not done.wait(0.002):
            found[0] = max(found[0], own() - start)

    start = own()
    thread = Thread(target=watch)
    thread.start()
    yield found
    done.set()
    thread.join()


def load(stored: str, model: str, precision: str) -> dict[str, float]:
    import torch

    from graftlab.models.allocator import tune_allocator
    from graftlab.models.quantization.weight import QuantizedWeight
    from graftlab.models.tiny import TinyModel

    tune_allocator()
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    place = torch.device("cpu")
    TinyModel().load(dtype=dtype, device=place)  # imports what loading needs
    spec = spec_of(stored, model).model
    with peak_of_own_memory() as peak:
        start = time.process_time()
        base = spec.load(dtype=dtype, device=place)
        seconds = time.process_time() - start
    held = sum(
        sum(part.nbytes for part in each.parts)
        if isinstance(each, QuantizedWeight)
        else each.nbytes
        for each in base.model.parameters()
    )
    return {"held": held / MIB, "peak": peak[0], "seconds": seconds}


def train(stored: str, model: str, precision: str, steps: int) -> dict[str, float]:
    from graftlab.training.observer import Observer
    from graftlab.training.start import run

    seen = [(0.0, time.process_time())]

    class Clock(Observer):
        def after_step(self, row: dict[str, float]) -> None:
            seen.append((row["tokens"], time.process_time()))

    with tempfile.TemporaryDirectory() as scratch:
        overrides = [
            *("lora=attn-mlp", "packing.max_length=1024", "batch_size=1", "epochs=100"),
            *("callbacks=quiet", "logger=csv", "trainer=cpu", "compile=off"),
            *(f"max_steps={steps}", f"precision={precision}"),
            *("data.valid=null", "data.valid_fraction=0.0", "callbacks.samples.prompts=0"),
        ]
        spec = spec_of(stored, model, *overrides)
        spec.run_dir = f"{scratch}/run"
        result = run(spec, observer=Clock())
    steady = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(seen[1:])]
    return {"speed": median(steady), "peak": result.peak_rss_mb}


def sample(stored: str, model: str, precision: str, tokens: int) -> dict[str, float]:
    import torch

    from graftlab.generation.decode import generate
    from graftlab.generation.sampling import Generation
    from graftlab.models.allocator import tune_allocator
    from graftlab.training.precision import Precision, resolve
    from graftlab.types import Conversation, Message

    tune_allocator()
    place = torch.device("cpu")
    resolved = resolve(Precision(name=precision), place)
    spec = spec_of(stored, model).model
    base = spec.load(dtype=resolved.base_dtype, device=place)
    tokenizer: Any = spec.load_tokenizer()
    ask = Conversation((Message("user", QUESTION),))

    class Endless:
        """The tokenizer without stop tokens, so that every reply is as long."""

        stop_ids, render, decode = (), tokenizer.render, tokenizer.decode

    def speed() -> float:
        start = time.process_time()
        with resolved.autocast():
            reply = generate(base, Endless(), ask, Generation(max_new_tokens=tokens))  # type: ignore[arg-type]
        return reply.num_tokens / (time.process_time() - start)

    return {"speed": max(speed() for _ in range(3))}


def child(asked: argparse.Namespace) -> None:
    """Measure, and print what was found as the last line."""
    place = (asked.stored, asked.model or "tiny", asked.precision)
    if asked.work == "loading":
        found = load(*place)
    elif asked.work == "training":
        found = train(*place, steps=1 + asked.steps)
    else:
        found = sample(*place, tokens=asked.tokens)
    print(json.dumps(found))


def measured(stored: str, work: str, precision: str, asked: argparse.Namespace) -> Any:
    """One run, in a process of its own."""
    options = [f"--stored={stored}", f"--work={work}", f"--precision={precision}"]
    options += [f"--steps={asked.steps}", f"--tokens={asked.tokens}"]
    options += [f"--model={asked.model}"] if asked.model else []
    done = subprocess.run(
        [sys.executable, __file__, *options],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{stored}, {work}:\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def rounds_of(work: str, precision: str, asked: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Storage -> medians over the rounds, taken in turn."""
    found: dict[str, list[dict[str, float]]] = {stored: [] for stored in STORED}
    for _ in range(asked.rounds):
        for stored, runs in found.items():
            runs.append(measured(stored, work, precision, asked))
            print(f"  {work}, {precision}: {stored}: {runs[-1]}", flush=True)
    return {
        stored: {key: median(run[key] for run in runs) for key in runs[0]}
        for stored, runs in found.items()
    }


def answer_lines(found: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        f"### answers, at {found['none']['positions']:,.0f} positions",
        "",
        "| quantization | KL to the full base, nats | another likeliest token | loss |",
        "|---|---:|---:|---:|",
    ]
    for stored, told in found.items():
        kl = f"{told['kl']:.2g}" if stored != "none" else "0"
        lines.append(f"| {stored} | {kl} | {told['other']:.1%} | {told['loss']:.4f} |")
    return [*lines, ""]


def speed_lines(precision: str, asked: argparse.Namespace) -> list[str]:
    loaded, trained, sampled = (rounds_of(work, precision, asked) for work in WORKS)
    lines = [
        f"### {precision}",
        "",
        "| quantization | weights, MiB | most while loading, MiB | loading, s | training, tokens/s "
        "| ratio | peak, MiB | sampling, tokens/s | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for stored in STORED:
        speeds = [each[stored]["speed"] for each in (trained, sampled)]
        plain = [each["none"]["speed"] for each in (trained, sampled)]
        lines.append(
            f"| {stored} | {loaded[stored]['held']:,.0f} | {loaded[stored]['peak']:,.0f} "
            f"| {loaded[stored]['seconds']:.1f} | {shown(speeds[0])} "
            f"| **{speeds[0] / plain[0]:.2f}** | {trained[stored]['peak']:,.0f} "
            f"| {shown(speeds[1])} | {speeds[1] / plain[1]:.2f} |"
        )
    return [*lines, ""]


def main(asked: argparse.Namespace) -> None:
    name = Path(asked.model).name if asked.model else "the embedded base"
    lines = ["# A base in four or eight bits", "", machine()]
    lines += [
        f"{name}. One thread; processor time; {asked.steps} steps and {asked.tokens} tokens a "
        f"run, {asked.rounds} rounds in turn, medians. Loading counts pages of the process, and "
        "not those of the file.",
        "",
        *answer_lines(answers(asked.model or "tiny", asked.data, asked.limit)),
    ]
    for precision in asked.precisions:
        lines += speed_lines(precision, asked)
    publish(lines, "quantization.md", write=asked.write)


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a model folder in place of the embedded base")
    parser.add_argument("--data", help="a file of conversations in place of the demo's")
    parser.add_argument("--limit", type=int, default=20, help="conversations that are compared")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=2, help="runs of each storage")
    parser.add_argument("--steps", type=int, default=3, help="timed optimizer steps of a run")
    parser.add_argument("--tokens", type=int, default=40, help="tokens of a reply")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    parser.add_argument("--stored", choices=list(STORED), help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=PRECISIONS, help=argparse.SUPPRESS)
    return parser.parse_args(given)


if __name__ == "__main__":
    given = parsed()
    child(given) if given.work else main(given)
