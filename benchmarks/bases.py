"""What a base in four or eight bits costs: memory, speed, and the loss of what is trained on it.

    loading     what the weights take, and the most that loading takes
    training    packed rows, LoRA on all projections: speed, and memory beyond the weights
    loss        the validation loss after the same steps on the same rows

graftlab on weights stored in bf16, fp32, nf4, int8 and in a GGUF's Q8_0 and Q4_K blocks, beside
transformers' Trainer on PEFT and bitsandbytes as their documentation has it. Every run is a process
of its own with one thread, timed in processor time, which other work on the machine disturbs least;
contestants take turns in every round.

Run as:
    python benchmarks/bases.py --model DIR                          # a SmolLM2 or Qwen2 folder
    python benchmarks/bases.py --model DIR --data FILE --about WHAT # chats of yours
    python benchmarks/bases.py --model DIR --kept RUNS.jsonl        # can be stopped and goes on
    python benchmarks/bases.py --model DIR --write                  # keep it in benchmarks/results/
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from arena import HERE, SOURCE, machine, publish, shown
from bases_contestants import OURS, THEIRS, write_gguf
from workload import SHAPE, make

BESIDE = {"nf4": "HF Trainer, bitsandbytes nf4", "int8": "HF Trainer, bitsandbytes int8"}
LOSSES = ("bf16", "int8", "GGUF Q8_0", "nf4", "GGUF Q4_K")
QWEN = SHAPE | {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "vocab_size": 151_936,
}
"""Qwen2.5-0.5B's sizes."""
ROWS = {"short": (1024, False), "long": (4095, True)}
"""Tokens of a row, and whether activations are recomputed."""
WORKS = (*ROWS, "loss", "qwen")
LOSS_LENGTH = 256
PRE = {"llama": "smollm", "qwen2": "qwen2"}
"""Model type -> how llama.cpp calls the way its tokenizer splits text."""
MISSING = "Needs more: pip install 'graftlab[gguf]' xllamacpp"


Found = dict[str, list[dict[str, float]]]


def measured(
    asked: argparse.Namespace, work: str, names: Sequence[str], rounds: int, **settings: Any
) -> Found:
    """Contestant -> what its runs found; each a process of its own, round after round."""
    kept = Path(asked.kept) if asked.kept else None
    lines = kept.read_text(encoding="utf-8").splitlines() if kept and kept.exists() else []
    known = dict(json.loads(line) for line in lines)
    found: Found = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            options = {"contestant": name, "data": asked.data, **settings}
            key = json.dumps([work, options["base"], settings.get("length"), name, turn])
            if key not in known:
                known[key] = _run(work, options)
                if kept:
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([key, known[key]]) + "\n")
            found[name].append(known[key])
            print(f"  {key}: {known[key]}", flush=True)
    return found


def _run(work: str, options: dict[str, Any]) -> dict[str, float]:
    paths = [str(SOURCE), os.environ.get("PYTHONPATH", "")]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, str(HERE / "bases_contestants.py"), work, json.dumps(options)],
        env={**os.environ, **quiet, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{work}, {options}:\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def middle(runs: Sequence[dict[str, float]], key: str) -> float:
    return median(run[key] for run in runs)


def ratios(found: Found, name: str, other: str) -> list[float]:
    """Speeds beside another contestant's of the same round, from the worst."""
    pairs = zip(found[name], found[other], strict=True)
    return sorted(mine["speed"] / its["speed"] for mine, its in pairs)


def loading_lines(found: Found) -> list[str]:
    layer = next(iter(found.values()))[0]["layer"]
    lines = [
        f"**Loading.** One decoder layer is {layer:.1f} MiB in fp32. The most counts pages of the "
        "process, not those of the file, in which a GGUF's blocks stay.",
        "",
        "| | weights, MiB | most while loading, MiB | over weights and a layer "
        "| the layers' matrices, x bf16 | s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in found.items():
        held, peak = middle(runs, "held"), middle(runs, "peak")
        lines.append(
            f"| {name} | {held:,.0f} | {peak:,.0f} | {peak / (held + layer):.2f} "
            f"| {middle(runs, 'share'):.3f} | {middle(runs, 'seconds'):.1f} |"
        )
    return [*lines, ""]


def training_lines(title: str, found: Found, loaded: Found) -> list[str]:
    plain = beyond_weights("bf16", found, loaded)
    lines = [
        f"**Training, {title}.** Ratios are to bf16.",
        "",
        "| | tokens/s | ratio | (worst to best round) | memory beyond the weights, MiB | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in found.items():
        shares, beyond = ratios(found, name, "bf16"), beyond_weights(name, found, loaded)
        lines.append(
            f"| {name} | {shown(middle(runs, 'speed'))} | **{median(shares):.2f}** "
            f"| {shares[0]:.2f} to {shares[-1]:.2f} | {beyond:,.0f} "
            f"| {beyond / plain:.2f} |"
        )
    return [*lines, ""]


def beyond_weights(name: str, found: Found, loaded: Found) -> float:
    return middle(found[name], "memory") - middle(loaded[name], "held")


def loss_lines(found: Found, asked: argparse.Namespace) -> list[str]:
    lines = [
        f"**Loss** on held-out conversations, after {asked.loss_steps} steps of rows of "
        f"{LOSS_LENGTH} tokens.",
        "",
        "| | the base | trained | beside bf16 |",
        "|---|---:|---:|---:|",
    ]
    for name, runs in found.items():
        less = middle(runs, "loss") - middle(found["bf16"], "loss")
        base, trained = middle(runs, "baseline"), middle(runs, "loss")
        lines.append(f"| {name} | {base:.4f} | {trained:.4f} | {less:+.4f} |")
    return [*lines, ""]


def goals(runs: Sequence[tuple[Found, Found]], lost: Found) -> list[str]:
    """What was to be reached, the worst that was measured, and whether it was.

    `runs` are what training found and what loading did, of a base and a length of rows each.
    """
    coded = ("nf4", "GGUF Q8_0", "GGUF Q4_K")
    told = {
        ("nf4 and GGUF, speed beside bf16", ">= 0.75"): [
            median(ratios(found, name, "bf16"))
            for found, _ in runs
            for name in coded
            if name in found
        ],
        ("4 bits, the layers' matrices, x bf16", "<= 0.35"): [
            middle(loaded[name], "share")
            for _, loaded in runs
            for name in ("nf4", "GGUF Q4_K")
            if name in loaded
        ],
        ("most while loading, over weights and a layer", "<= 1.15"): [
            middle(loaded[name], "peak")
            / (middle(loaded[name], "held") + middle(loaded[name], "layer"))
            for _, loaded in runs
            for name in (*coded, "int8")
            if name in loaded
        ],
        ("speed beside HF Trainer with bitsandbytes", ">= 2.5"): [
            median(ratios(found, mine, other))
            for found, _ in runs
            for mine, other in BESIDE.items()
            if mine in found and other in found
        ],
        ("memory beyond the weights beside it", "<= 0.6"): [
            beyond_weights(mine, *run) / beyond_weights(other, *run)
            for run in runs
            for mine, other in BESIDE.items()
            if mine in run[0] and other in run[0]
        ],
        ("int8 and Q8_0, loss over bf16's, nats", "<= 0.02"): [
            middle(lost[name], "loss") - middle(lost["bf16"], "loss")
            for name in ("int8", "GGUF Q8_0")
            if name in lost
        ],
    }
    lines = [
        "## What was to be reached",
        "",
        "| | goal | measured, from the worst | |",
        "|---|---:|---:|---|",
    ]
    for (what, goal), values in told.items():
        if not values:
            continue
        sign, limit = goal.split()
        values = sorted(values, reverse=sign == "<=")
        met = (value <= float(limit) if sign == "<=" else value >= float(limit) for value in values)
        count = sum(met)
        said = "yes" if count == len(values) else f"{count} of {len(values)}"
        shown_values = " to ".join(
            f"{value:.3f}" for value in dict.fromkeys((values[0], values[-1]))
        )
        lines.append(f"| {what} | {goal} | {shown_values} | {said} |")
    return [*lines, ""]


def prepare(base: Path, scratch: Path, name: str, *, pre: str) -> str:
    """A link to the folder in `scratch`, with its GGUF files beside it."""
    link = scratch / name
    if not link.exists():
        link.symlink_to(base.resolve())
    for kind in ("Q8_0", "Q4_K"):
        path = Path(f"{link}.{kind}.gguf")
        if not path.exists():
            write_gguf(base, path, kind, pre=pre)
    return str(link)


def random_qwen(scratch: Path, layers: int, speaker: Path) -> Path:
    """A Qwen2.5-0.5B of random weights, in bf16, with the tokenizer of the folder `speaker`."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = scratch / f"random-{layers}"
    if not folder.exists():
        shape = QWEN | {"num_hidden_layers": layers}
        base = make(folder, profile="chats", documents=1, shape=shape).base
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        model.save_pretrained(base)
        for file in (*speaker.glob("tokenizer*.json"), *speaker.glob("chat_template.jinja")):
            shutil.copy(file, base)
    return folder / "base"


def main(asked: argparse.Namespace) -> None:
    """Everything, and its tables."""
    if not all(map(find_spec, ("gguf", "xllamacpp"))):
        raise SystemExit(MISSING)
    scratch = Path(asked.scratch or tempfile.mkdtemp())
    beside = list(THEIRS) if all(map(find_spec, ("bitsandbytes", "accelerate"))) else []
    if not beside:
        print("Without HF Trainer, which needs: pip install bitsandbytes accelerate")
    some = [name for name in [*OURS, *beside] if name in asked.contestants]
    lines = ["# A base in four or eight bits", "", machine()]
    lines += [
        f"One thread; processor time; a step to warm up and {asked.steps} timed; {asked.rounds} "
        f"round{'s in turn, medians' if asked.rounds > 1 else ''}. Other work ran on the machine, "
        "so that ratios, which are taken within a round, say more than speeds. Nothing is "
        "compiled; products are in bf16, those of fp32 apart. Memory is resident: of nf4 and int8 "
        "it counts the pages of the folder that were read while loading, up to its size, which the "
        "system may take back.",
        "",
    ]
    runs: list[tuple[Found, Found]] = []

    def train(title: str, base: str, names: Sequence[str], rounds: int, rows: str) -> None:
        length, recomputed = ROWS[rows]
        found = measured(
            asked, "training", names, rounds, base=base,
            length=length, checkpointing=recomputed, steps=2 if rows == "long" else asked.steps + 1,
        )  # fmt: skip
        runs.append((found, loaded))
        lines.extend(training_lines(title, found, loaded))

    speaker = Path(asked.model)
    pre = PRE[json.loads((speaker / "config.json").read_text())["model_type"]]
    model, lost = prepare(speaker, scratch, "model", pre=pre), {}
    lines += [f"## {asked.title or Path(asked.model).name}, {asked.about}", ""]
    loaded = measured(asked, "loading", [*OURS, *beside], 1, base=model)
    lines += loading_lines(loaded)
    if "short" in asked.works:
        train("rows of 1,024 tokens", model, [*OURS, *beside], asked.rounds, "short")
    if "long" in asked.works:
        title = "rows of 4,095 tokens, activations recomputed, one step timed"
        train(title, model, some, 1, "long")
    if "loss" in asked.works:
        settings = {"length": LOSS_LENGTH, "steps": asked.loss_steps, "limit": asked.limit}
        lost = measured(asked, "loss", asked.losses, 1, base=model, **settings)
        lines += loss_lines(lost, asked)
    if "qwen" in asked.works:
        base = random_qwen(scratch, asked.layers, speaker)
        model = prepare(base, scratch, f"qwen-{asked.layers}", pre=pre)
        lines += [f"## Qwen2.5-0.5B's sizes, {asked.layers} layers of random weights", ""]
        loaded = measured(asked, "loading", some, 1, base=model)
        lines += loading_lines(loaded)
        train("rows of 1,024 tokens, one round", model, some, 1, "short")
    lines += goals(runs, lost)
    publish(lines, "bases.md", write=asked.write)


def parsed() -> argparse.Namespace:
    from graftlab.data.demo import DemoData

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a folder of SmolLM2, or of a Qwen2")
    demo = str(DemoData().files()[0][0])
    parser.add_argument("--data", default=demo, help="conversations in place of the demo's")
    parser.add_argument("--about", default="the demo's conversations", help="what --data is")
    parser.add_argument("--title", help="what the tables call the model")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    most = [name for name in (*OURS, *THEIRS) if name != "fp32"]
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=most,
        default=most,
        help="of `long` and `qwen`, with bf16",
    )
    parser.add_argument("--layers", type=int, default=24, help="of the base of random weights")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each at 1,024 tokens")
    parser.add_argument("--steps", type=int, default=3, help="timed optimizer steps of a run")
    parser.add_argument("--loss-steps", type=int, default=100, help="steps before the loss")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--limit", type=int, default=400, help="conversations for the loss")
    parser.add_argument("--scratch", help="a folder for the GGUF files, kept")
    parser.add_argument("--kept", help="a file of runs; those that it holds are not repeated")
    parser.add_argument("--write", action="store_true", help="keep the tables in results/")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
