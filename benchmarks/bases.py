"""What a base in four or eight bits costs: memory, speed, and the loss of what is trained on it.

graftlab on weights in bf16, fp32, nf4, int8 and in the blocks of its own GGUF exports, beside
transformers' Trainer on PEFT and bitsandbytes as their documentation has it. Every run is a process
of its own with one thread, timed in processor time, which other work on the machine disturbs least;
those of a table train at once and take turns, a step each, so that a slow minute hits all of them.
That takes the memory of all: 20 GiB for the largest table, of SmolLM2-135M.

Run as:
    python benchmarks/bases.py --model DIR                      # a SmolLM2 or Qwen2 folder
    python benchmarks/bases.py --model DIR --varied FILE.jsonl  # chats of uneven length, of yours
    python benchmarks/bases.py --model DIR --works short loss   # some of it
    python benchmarks/bases.py --model DIR --kept RUNS.jsonl    # can be stopped and goes on
    python benchmarks/bases.py --model DIR --write              # keep it in benchmarks/results/
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from arena import HERE, SOURCE, machine, publish
from bases_contestants import COMPILED, OURS, THEIRS
from bases_tables import LOSS, Found, goals, loading_lines, loss_lines, training_lines
from workload import SHAPE, make

QWEN = SHAPE | {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "vocab_size": 151_936,
}
"""Qwen2.5-0.5B's sizes; of its 24 layers as many as are asked for."""
STORED = tuple(name for name in OURS if name != COMPILED)
MISSING = "Needs more: pip install 'graftlab[gguf]' bitsandbytes accelerate"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of training runs."""

    title: str
    names: tuple[str, ...]
    settings: dict[str, Any]


CASES = {
    "short": Case("rows of 1,024 tokens", (*OURS, *THEIRS), {"length": 1024, "steps": 4}),
    "varied": Case(
        "conversations as they come: ours in rows of 1,024 tokens, theirs in batches of four "
        "padded to the longest; tokens are those of conversations",
        ("bf16", "nf4", "int8", COMPILED, *THEIRS),
        {"length": 1024, "steps": 5, "padded": 4},
    ),
    "long": Case(
        "rows of 4,095 tokens, activations recomputed, one step timed",
        ("bf16", "nf4", "GGUF Q4_K_M", THEIRS[0]),
        {"length": 4095, "steps": 2, "checkpointing": True},
    ),
    "qwen": Case(
        "rows of 1,024 tokens",
        ("bf16", "nf4", "int8", "GGUF Q8_0", "GGUF Q4_K_M", THEIRS[0]),
        {"length": 1024, "steps": 4},
    ),
}
WORKS = (*CASES, "loss")
QUANTS = ("q8_0", "q4_k_m")


class Runs:
    """Runs and what they found; with a file, those that it holds are not repeated."""

    def __init__(self, kept: str | None) -> None:
        self.file = Path(kept) if kept else None
        lines = self.file.read_text().splitlines() if self.file and self.file.exists() else []
        self.known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def alone(self, key: str, names: Sequence[str], **options: Any) -> Found:
        """Each by itself, of the work that `key` begins with."""
        found: Found = {}
        for name in names:
            if (own := f"{key} {name}") not in self.known:
                run = Run(key.split(":")[0], {"contestant": name, **options})
                self._keep(own, run.result())
            found[name] = [self.known[own]]
        return found

    def in_turn(self, case: str, names: Sequence[str], **options: Any) -> Found:
        """Training of all of them, a step each at a time: every round is one step of each."""
        if case not in self.known:
            options["turns"] = True
            running = [Run("training", {"contestant": name, **options}) for name in names]
            for turn in range(options["steps"]):
                first = turn % len(names)
                for run in [*running[first:], *running[:first]]:
                    run.step()
            self._keep(case, dict(zip(names, [run.result() for run in running], strict=True)))
        return {
            name: [{"speed": speed, "memory": found["memory"]} for speed in found["speeds"]]
            for name, found in self.known[case].items()
        }

    def _keep(self, key: str, found: dict[str, Any]) -> None:
        self.known[key] = found
        print(f"  {key}: {found}", flush=True)
        if self.file:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, found]) + "\n")


class Run:
    """A contestant in a process of its own, which begins when it is first asked for something."""

    def __init__(self, work: str, options: dict[str, Any]) -> None:
        self.words = [str(HERE / "bases_contestants.py"), work, json.dumps(options)]
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the run
        self.process: subprocess.Popen[str] | None = None

    def step(self) -> None:
        """Go on to the end of the next step, behind which it stops by itself."""
        process = self._going()
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise SystemExit(self._said())

    def result(self) -> dict[str, Any]:
        """What it found, at its end."""
        if self._going().wait():
            raise SystemExit(self._said())
        lines = [line for line in self._said().splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def _going(self) -> subprocess.Popen[str]:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            return self.process
        paths = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            [sys.executable, *self.words],
            env={**os.environ, **quiet, "OMP_NUM_THREADS": "1"},
            stdout=self.output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def _said(self) -> str:
        self.output.seek(0)
        return self.output.read()


def prepare(base: Path, scratch: Path, name: str) -> str:
    """A link to the folder in `scratch`, with its GGUF files beside it."""
    link = scratch / name
    if not link.exists():
        link.symlink_to(base.resolve())
    for quant in QUANTS:
        if not Path(f"{link}.{quant}").exists():
            write_gguf(base, Path(f"{link}.{quant}"), quant)
    return str(link)


def write_gguf(base: Path, folder: Path, quant: str) -> None:
    """`folder`/model.gguf: the base itself, as an adapter that was not trained changes nothing."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from graftlab.exports.gguf import GGUF
    from graftlab.exports.source import load
    from graftlab.models.hf import HFModel

    with tempfile.TemporaryDirectory() as adapter:
        config = LoraConfig(task_type="CAUSAL_LM", r=1, target_modules=["q_proj"])
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(adapter)
        folder.mkdir(parents=True)
        GGUF(quant=quant).write(load(adapter, HFModel(path=str(base))), folder)


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
    if not all(map(find_spec, ("gguf", "xllamacpp", "bitsandbytes", "accelerate"))):
        raise SystemExit(MISSING)
    scratch, speaker = Path(asked.scratch or tempfile.mkdtemp()), Path(asked.model)
    scratch.mkdir(parents=True, exist_ok=True)
    model, lost, runs = prepare(speaker, scratch, "model"), {}, []
    known = Runs(asked.kept)
    lines = ["# A base in four or eight bits", "", machine()]
    lines += [
        "One thread; processor time. All of a table train at once and take turns, a step each, the "
        "first to warm up: every round is a step of each, ratios are taken within a round, speeds "
        "and ratios are medians. Other work ran on the machine. Products are in bf16 where the "
        "processor has units for it, else in fp32, theirs too. Memory is what is resident at most, "
        "less the imports and the weights.",
        "",
        f"## {asked.title or speaker.name}",
        "",
    ]

    def train(case: str) -> list[str]:
        chosen = CASES[case]
        names = [name for name in chosen.names if name in (asked.only or chosen.names)]
        settings = {"base": model, "data": asked.varied if case == "varied" else asked.data}
        found = known.in_turn(case, names, **settings, **chosen.settings)
        runs.append((case, found, loaded))
        return training_lines(chosen.title, found, loaded)

    loaded = known.alone("loading", [*STORED, *THEIRS], base=model)
    lines += loading_lines(loaded)
    for case in (case for case in CASES if case in asked.works and case != "qwen"):
        lines += train(case)
    if "loss" in asked.works:
        lost = known.alone("loss", STORED, base=model, data=asked.varied, **LOSS)
        lines += loss_lines(lost)
    if "qwen" in asked.works:
        base = random_qwen(scratch, asked.layers, speaker)
        model = prepare(base, scratch, f"qwen-{asked.layers}")
        lines += [f"## Qwen2.5-0.5B's sizes, {asked.layers} of its 24 layers, random weights", ""]
        loaded = known.alone("loading:qwen", CASES["qwen"].names, base=model)
        lines += loading_lines(loaded) + train("qwen")
    publish(lines + goals(runs, lost), "bases.md", write=asked.write)


def parsed() -> argparse.Namespace:
    from graftlab.data.demo import DemoData

    demo = str(DemoData().files()[0][0])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a folder of SmolLM2, or of a Qwen2")
    parser.add_argument("--title", help="what the tables call it")
    parser.add_argument("--data", default=demo, help="conversations in place of the demo's")
    parser.add_argument("--varied", default=demo, help="those of `varied` and `loss`")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--only", nargs="+", choices=[*OURS, *THEIRS], help="contestants in turns")
    parser.add_argument("--layers", type=int, default=24, help="of the base of random weights")
    parser.add_argument("--scratch", help="a folder for the GGUF files, kept")
    parser.add_argument("--kept", help="a file of runs; those that it holds are not repeated")
    parser.add_argument("--write", action="store_true", help="keep the tables in results/")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
