"""Merging an adapter into a sharded bf16 base, beside PEFT's merge_and_unload: seconds and memory.

A random Llama in the shape of a small model, LoRA rank 16 (and DoRA) on seven projections. Every
merge is a process of its own. Memory is what is its own (anonymous pages) beyond the imports: pages
of mapped files are the system's to take back.

With --drift, of an adapter that was trained: how far each type of weights is from it (`drift.py`).

Run as:
    python benchmarks/export.py                     # half a billion parameters, some minutes
    python benchmarks/export.py --layers 2 --rounds 1
    python benchmarks/export.py --billion --rounds 1   # Llama 3.2 1B's shape: 10 GB of disk
    python benchmarks/export.py --converter FILE    # beside llama.cpp's convert_hf_to_gguf.py
    python benchmarks/export.py --drift RUN [RUN ...]
    python benchmarks/export.py --write             # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import json
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from arena import RESULTS, machine, publish

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHARD, DRIFT = "300MB", "# Drift"
OURS = "graftlab export target=merged"
HALF = {"hidden_size": 1280, "intermediate_size": 3456, "vocab_size": 32000}
HALF |= {"num_attention_heads": 20, "num_key_value_heads": 4}
BILLION = {"hidden_size": 2048, "intermediate_size": 8192, "vocab_size": 128256}
BILLION |= {"num_attention_heads": 32, "num_key_value_heads": 8}


def ours(folder: Path, adapter: str, out: Path) -> None:
    from graftlab.exports.merged import Merged
    from graftlab.exports.source import load
    from graftlab.models.hf import HFModel

    target = Merged()
    trained = load(str(folder / adapter), HFModel(path=str(folder / "base")))
    target.check(trained)
    target.write(trained, out)


def gguf(folder: Path, adapter: str, out: Path, quant: str = "f16") -> None:
    from graftlab.exports.gguf import GGUF
    from graftlab.exports.source import load
    from graftlab.models.hf import HFModel

    GGUF(quant=quant).write(load(str(folder / adapter), HFModel(path=str(folder / "base"))), out)


def ours_and_back(folder: Path, adapter: str, out: Path) -> None:
    from graftlab.exports.merged import Merged
    from graftlab.exports.source import load
    from graftlab.models.hf import HFModel

    ours(folder, adapter, out)
    model = HFModel(path=str(folder / "base"))
    Merged().verify(load(str(folder / adapter), model), out)


def theirs(folder: Path, adapter: str, out: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="auto")
    merged = PeftModel.from_pretrained(base, str(folder / adapter)).merge_and_unload()
    merged.save_pretrained(out, max_shard_size=SHARD)


def converted(folder: Path, adapter: str, out: Path, converter: str) -> None:
    """PEFT's merge, and llama.cpp's convert_hf_to_gguf.py on what it wrote."""
    theirs(folder, adapter, out)
    for file in (folder / "base").glob("tokenizer*"):
        shutil.copy(file, out)
    sys.argv = [converter, str(out), "--outtype", "f16", "--outfile", str(out / "model.gguf")]
    sys.path[:0] = [str(Path(converter).parent), str(Path(converter).parent / "gguf-py")]
    runpy.run_path(converter, run_name="__main__")


def contestants(converter: str | None) -> dict[str, Callable[[Path, str, Path], None]]:
    """Name -> what writes the merged model of folder/adapter to a folder."""
    found: dict[str, Callable[[Path, str, Path], None]] = {
        "PEFT merge_and_unload, save_pretrained": theirs,
        OURS: ours,
        f"{OURS}, read back": ours_and_back,
        "graftlab export target=gguf": gguf,
        "graftlab export target=gguf target.quant=q4_k_m": partial(gguf, quant="q4_k_m"),
    }
    if converter:
        found["PEFT, then convert_hf_to_gguf.py"] = partial(converted, converter=converter)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--billion", action="store_true", help="the shape of Llama 3.2 1B")
    parser.add_argument("--drift", nargs="+", metavar="RUN", help="runs of trained adapters")
    parser.add_argument("--converter", metavar="FILE", help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    parser.add_argument("--one", nargs=4, metavar=("NAME", "FOLDER", "ADAPTER", "OUT"))
    arguments = parser.parse_args()
    if arguments.one:
        name, *places = arguments.one
        contestant = contestants(arguments.converter)[name]
        print(json.dumps(measured(contestant, Path(places[0]), places[1], Path(places[2]))))
        return
    if arguments.drift:
        merging, _ = kept()
        publish([merging, *drifts(arguments.drift)], "export.md", write=arguments.write)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shape = BILLION if arguments.billion else HALF
        layers = arguments.layers or (16 if arguments.billion else 24)
        size, largest = prepare(folder, {**shape, "num_hidden_layers": layers})
        lines = [
            "# Merging",
            "",
            f"{machine()} One thread. {size / 1e6:,.0f}M parameters in bf16, files of {SHARD}, the "
            f"largest tensor {largest / 2**20:,.0f} MiB. Processor seconds of each process, which "
            "other work beside it lengthens less than the clock, and private memory beyond the "
            f"imports; the median of {arguments.rounds}. PEFT sums in bf16, graftlab in fp32.",
        ]
        for adapter in ("lora",) if arguments.billion else ("lora", "dora"):
            found = compared(folder, adapter, arguments.rounds, arguments.converter)
            lines += ["", f"### {adapter}", "", *found]
    publish([*lines, "", kept()[1]], "export.md", write=arguments.write)


def kept() -> tuple[str, str]:
    """What was measured of merging, and of drift."""
    file = RESULTS / "export.md"
    merging, mark, drift = file.read_text(encoding="utf-8").partition(DRIFT)
    return merging, mark + drift


def drifts(runs: list[str]) -> list[str]:
    """A table of each run."""
    from drift import drift

    lines = [
        DRIFT,
        "",
        f"{machine()} One thread, processor seconds. Training's code and each export in its own "
        "runtime answer the same held-out rows, in fp32; KL in nats, means over all positions.",
    ]
    for run in runs:
        with tempfile.TemporaryDirectory() as scratch:
            found = drift(run, Path(scratch), rows=10, tokens=40, imatrix_rows=40)
        lines += ["", f"### {Path(run).name}", "", *found]
    return lines


def prepare(folder: Path, shape: dict[str, int]) -> tuple[int, int]:
    """base/, lora/ and dora/ in `folder`; parameters, and bytes of the largest tensor."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from miniatures import save_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(**shape, tie_word_embeddings=True, dtype="bfloat16")
    model = LlamaForCausalLM(config).bfloat16()
    model.save_pretrained(folder / "base", max_shard_size=SHARD)
    save_tokenizer(folder / "base")
    size = sum(parameter.numel() for parameter in model.parameters())
    largest = max(parameter.nbytes for parameter in model.parameters())
    for name in ("lora", "dora"):
        made = LoraConfig(r=16, target_modules=PROJECTIONS, use_dora=name == "dora")
        adapted = get_peft_model(model, made)
        with torch.no_grad():
            for parameter_name, parameter in adapted.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.normal_(std=0.01)
        adapted.save_pretrained(folder / name)
        model = adapted.unload()
    return size, largest


def compared(folder: Path, adapter: str, rounds: int, converter: str | None) -> list[str]:
    """The rows of a table, contestants in turn."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants(converter)}
    for _ in range(rounds):
        for name in found:
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            words = ["--one", name, str(folder), adapter, str(out)]
            words += ["--converter", converter] if converter else []
            done = subprocess.run(
                [sys.executable, __file__, *words], capture_output=True, text=True, check=True
            )
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    first = next(iter(middle.values()))
    return [
        "| | processor seconds | ratio | private memory, MiB | ratio |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {name} | {one['seconds']:.1f} | **{one['seconds'] / first['seconds']:.2f}** | "
            f"{one['memory']:,.0f} | **{one['memory'] / first['memory']:.2f}** |"
            for name, one in middle.items()
        ),
    ]


def measured(
    merge: Callable[[Path, str, Path], None], folder: Path, adapter: str, out: Path
) -> dict[str, float]:
    """Processor seconds, and the largest private memory beyond the imports, in MiB."""
    import peft  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    import graftlab.exports.merge  # noqa: F401

    torch.set_num_threads(1)
    before, peaks, done = anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    merge(folder, adapter, out)
    seconds = time.process_time() - start
    done.set()
    watcher.join()
    return {"seconds": seconds, "memory": max(peaks) - before}


def anonymous() -> float:
    """Anonymous resident memory of this process, in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 2**10
    raise OSError("this system does not say what of a process is its own")


if __name__ == "__main__":
    main()
