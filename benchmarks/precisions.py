"""Speed and memory by precision, on a processor: training in packed rows, and sampling.

fp32 against bf16-mixed and bf16, whose products a processor without bf16 units computes in fp32
(`models/upcast.py`); and bf16-mixed with the products that torch has there by itself. Every run is
a process of its own with one thread, timed in processor time, which other work on the machine
disturbs least.

Run as:
    python benchmarks/precisions.py                         # the embedded base
    python benchmarks/precisions.py --model DIR             # and a model folder
    python benchmarks/precisions.py --avx2                  # as on a processor without bf16 units
    python benchmarks/precisions.py --avx2 --write          # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from arena import SOURCE, machine, publish, shown

ITSELF = "bf16-mixed, torch's own products"
CONTESTANTS = {"fp32": "fp32", "bf16-mixed": "bf16-mixed", "bf16": "bf16", ITSELF: "bf16-mixed"}
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""What makes oneDNN and torch leave newer units alone."""
COMPILED = "training, compiled"
WORKS = {
    "training": "a packed row of at most 1,024 tokens a step, LoRA on all projections",
    COMPILED: "the same with compiled layers",
    "sampling": "one token at a time, greedy",
}
QUESTION = "Present this track. title: Salt Road; artist: Petra Novak; tempo: 74 BPM"
SLOW_STEPS = 1
"""Timed steps of torch's own products: each takes many times as long."""


def train(contestant: str, model: str, *, compiled: bool, steps: int) -> dict[str, float]:
    """Tokens a second of the median step, the first left out; MiB taken beyond the imports."""
    import graftlab.training.run  # noqa: F401  counted as an import
    from graftlab.cli.compose import build, compose
    from graftlab.data.demo import DemoData
    from graftlab.tracking.result import resident_mb
    from graftlab.training.observer import Observer
    from graftlab.training.start import run

    imported = resident_mb()
    (chats,), _ = DemoData().files()
    seen = [(0.0, time.process_time())]

    class Clock(Observer):
        def after_step(self, row: dict[str, float]) -> None:
            seen.append((row["tokens"], time.process_time()))

    with tempfile.TemporaryDirectory() as scratch:
        overrides = [
            *(["model=tiny"] if model == "tiny" else ["model=hf", f"model.path={model}"]),
            *("lora=attn-mlp", "packing.max_length=1024", "batch_size=1", "epochs=100"),
            *("data=jsonl", f"data.train={chats}", "data.valid_fraction=0.0"),
            *("callbacks=quiet", "logger=csv", "trainer=cpu", f"run_dir={scratch}/run"),
            *(f"max_steps={steps}", f"compile={'on' if compiled else 'off'}"),
            f"precision={CONTESTANTS[contestant]}",
        ]
        spec = build(compose("train", overrides)).training()
        result = run(spec, observer=Clock())
    steady = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(seen[1:])]
    return {"speed": median(steady), "memory": result.peak_rss_mb - imported}


def sample(contestant: str, model: str, *, tokens: int) -> dict[str, float]:
    """Tokens a second of a greedy reply; MiB taken beyond the imports, once the base is there."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401  counted as an import

    from graftlab.generation.decode import generate
    from graftlab.generation.sampling import Generation
    from graftlab.models.allocator import tune_allocator
    from graftlab.models.hf import HFModel
    from graftlab.models.tiny import TinyModel
    from graftlab.tracking.result import forget_peak, peak_rss_mb, resident_mb
    from graftlab.training.precision import Precision, resolve
    from graftlab.types import Conversation, Message

    tune_allocator()
    imported = resident_mb()
    device = torch.device("cpu")
    precision = resolve(Precision(name=CONTESTANTS[contestant]), device)
    spec = TinyModel() if model == "tiny" else HFModel(path=model)
    base = spec.load(dtype=precision.base_dtype, device=device)
    tokenizer: Any = spec.load_tokenizer()
    ask = Conversation((Message("user", QUESTION),))
    forget_peak()  # of loading, where the pages of the file come and go

    class Endless:
        """The tokenizer without stop tokens, so that every reply is as long."""

        stop_ids, render, decode = (), tokenizer.render, tokenizer.decode

    def speed() -> float:
        start = time.process_time()
        with precision.autocast():
            reply = generate(base, Endless(), ask, Generation(max_new_tokens=tokens))  # type: ignore[arg-type]
        return reply.num_tokens / (time.process_time() - start)

    return {"speed": max(speed() for _ in range(3)), "memory": peak_rss_mb() - imported}


def measured(contestant: str, work: str, model: str, arguments: argparse.Namespace) -> Any:
    """One run, in a process of its own."""
    options = [f"--contestant={contestant}", f"--work={work}", f"--model={model}"]
    options += [f"--steps={arguments.steps}", f"--tokens={arguments.tokens}"]
    done = subprocess.run(
        [sys.executable, __file__, *options],
        env={
            **os.environ,
            **(AVX2 if arguments.avx2 else {}),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"{contestant}, {work} failed:\n{done.stdout[-1500:]}{done.stderr[-3000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def child(arguments: argparse.Namespace) -> None:
    """Measure, and print what was found as the last line."""
    if arguments.contestant == ITSELF:
        from graftlab.training import precision

        precision.upcast_products = lambda: None
    if arguments.work == "sampling":
        found = sample(arguments.contestant, arguments.model, tokens=arguments.tokens)
    else:
        steps = SLOW_STEPS if arguments.contestant == ITSELF else arguments.steps
        compiled = arguments.work == COMPILED
        found = train(arguments.contestant, arguments.model, compiled=compiled, steps=1 + steps)
    print(json.dumps(found))


def table(work: str, found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Medians over the rounds, beside fp32's."""
    lines = [
        f"### {work}: {WORKS[work]}",
        "",
        "| | tokens/s of a thread | ratio | (worst to best round) | memory, MiB | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in found.items():
        pairs = zip(runs, found["fp32"], strict=True)
        ratios = sorted(mine["speed"] / theirs["speed"] for mine, theirs in pairs)
        speed, memory = (median(run[key] for run in runs) for key in ("speed", "memory"))
        share = memory / median(run["memory"] for run in found["fp32"])
        lines.append(
            f"| {name} | {shown(speed)} | **{median(ratios):.2f}** | {ratios[0]:.2f} to "
            f"{ratios[-1]:.2f} | {memory:,.0f} | {share:.2f} |"
        )
    return [*lines, ""]


def main(arguments: argparse.Namespace) -> None:
    masked = ", with AVX-512 and bf16 units masked (ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY)"
    lines = ["# Speed and memory by precision", "", machine()]
    lines += [
        f"One thread{masked if arguments.avx2 else ''}; processor time; {arguments.steps} steps "
        f"({SLOW_STEPS} of torch's own products) and {arguments.tokens} tokens a run, "
        f"{arguments.rounds} rounds in turn, medians. Memory is what a process took beyond its "
        "imports.",
        "",
    ]
    for model in ("tiny", *([arguments.model] if arguments.model else [])):
        lines += [f"## {'embedded base' if model == 'tiny' else Path(model).name}", ""]
        for work in arguments.works:
            names = [name for name in CONTESTANTS if name != ITSELF or work != COMPILED]
            found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for _ in range(arguments.rounds):
                for name, runs in found.items():
                    runs.append(measured(name, work, model, arguments))
                    print(f"  {Path(model).name}, {work}: {name}: {runs[-1]}", flush=True)
            lines += table(work, found)
    publish(lines, "precisions.md", write=arguments.write)


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a model folder, beside the embedded base")
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=2, help="runs of each contestant")
    parser.add_argument("--steps", type=int, default=4, help="timed optimizer steps of a run")
    parser.add_argument("--tokens", type=int, default=60, help="tokens of a reply")
    parser.add_argument("--avx2", action="store_true", help="as on a processor with AVX2 only")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    parser.add_argument("--contestant", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=list(WORKS), help=argparse.SUPPRESS)
    return parser.parse_args(given)


if __name__ == "__main__":
    asked = parsed()
    child(asked) if asked.contestant else main(asked)
