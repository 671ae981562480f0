"""Apple's on-device model: loading and training, the toolkit's way and ours, side by side.

    load     naive: the model is made in fp32, the file read, its tensors copied in
             graftlab: made without memory, the file mapped, each tensor taken over as it is read
    train    toolkit: fp32 weights under bf16 autocast, logits at every position, a dense mask
             graftlab: bf16 weights, logits at labels, attention document by document

Both train the same adapter (rank 32, all linears) on the same packed rows, at the length profile
of the guides: 1,140 tokens, 144 of them trained. `mini` is the miniature's size; `1b` is a cut of
the true width, heads and vocabulary with fewer layers, its weights random: speed and memory do not
depend on them. Every measurement is a process of its own, in turn, round after round.

Run as:
    python benchmarks/afm.py                       # 1b needs 20 GiB of memory and 5 of disk
    python benchmarks/afm.py --only mini --rounds 3
    python benchmarks/afm.py --write               # keep the tables in results/
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena import machine, publish
from workload import MAX_LENGTH, REPLY_TOKENS, seed_lengths

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graftlab.types import Batch

SIZES: dict[str, dict[str, Any]] = {
    "mini": {
        "vocab_size": 2048,
        "hidden_dim": 128,
        "num_layers": 6,
        "num_kv_reuse_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
    },
    "1b": {"num_layers": 14, "num_kv_reuse_layers": 5},
}
"""What differs from the full model: 2048 wide, 56 layers (21 reuse keys), 153,600 words."""
ROWS = {"mini": MAX_LENGTH, "1b": 2048}
"""Tokens of a packed row; longer documents are left out. The toolkit's way needs more than 24 GiB
for a row of 4,095 on the larger one."""
RANK, ALPHA = 32, 16
LR = 1e-4
MIB = 2**20


def write_model(folder: Path, size: str) -> None:
    """The assets of a model of that size, random, without its tokenizer, which nothing here asks.

    The weights are those of a plain base, as the toolkit's file holds them: fp32.
    """
    import tamm.utils.json
    import torch
    from tamm.adapters import LoRAModelAdapter
    from tamm.ao.arch_optimizers import KVQuantArchOptimizer
    from tamm.models.afm_text import AFMTextV7

    torch.manual_seed(0)
    config = AFMTextV7.Config(
        adapters={"base_adapter": LoRAModelAdapter(rank=RANK, alpha=ALPHA)},
        arch_optimizers={"kv_quant": KVQuantArchOptimizer()},
        **SIZES[size],
    )
    folder.mkdir()
    text = tamm.utils.json.dumps(config, indent=2)
    (folder / "base-model-config.json").write_text(text, encoding="utf-8")
    model = config.create_model()
    model.train()
    with torch.no_grad():  # the quantisers of keys and values see some
        model(torch.randint(1, 1000, (1, 64)))
    torch.save(model.state_dict(), folder / "base-model.pt")
    (folder / "tokenizer.model").write_bytes(b"")


def rows(vocabulary: int, length: int) -> Iterator[Batch]:
    """Endless packed micro-batches of random words, the last 144 of every document trained."""
    import numpy as np
    import torch

    from graftlab.packing.plan import Packing, plan_rows
    from graftlab.types import IGNORE, Batch

    draw = random.Random(0)
    lengths = [drawn for _ in range(64) if (drawn := seed_lengths(draw)) <= length]
    planned = plan_rows(lengths, Packing(strategy="best-fit", max_length=length))
    draw.shuffle(planned)
    words = torch.Generator().manual_seed(0)
    while True:
        for row in planned:
            documents = [lengths[i] for i in row]
            ids = torch.randint(8, vocabulary, (1, sum(documents)), generator=words)
            labels = torch.full_like(ids, IGNORE)
            edges = np.concatenate([[0], np.cumsum(documents)]).astype(np.int32)
            for end in edges[1:]:
                labels[0, end - REPLY_TOKENS : end - 1] = ids[0, end - REPLY_TOKENS + 1 : end]
            positions = torch.cat([torch.arange(length) for length in documents])[None]
            units = int((labels != IGNORE).sum())
            yield Batch(ids, labels, positions, torch.from_numpy(edges), units)


def load_naively(folder: Path) -> nn.Module:
    """What a script does that knows no better."""
    import tamm.utils.json
    import torch

    config = tamm.utils.json.loads((folder / "base-model-config.json").read_text("utf-8"))
    model: nn.Module = config.create_model()
    model.load_state_dict(torch.load(folder / "base-model.pt", weights_only=True))
    return model


def load_ours(folder: Path, dtype: str) -> Any:
    import torch

    from graftlab.apple.model import AFMModel

    spec = AFMModel(path=str(folder))
    return spec.load(dtype=getattr(torch, dtype), device=torch.device("cpu"))


def toolkit_steps(folder: Path, batches: Iterator[Batch]) -> Iterator[Tensor]:
    """The toolkit's way: one loss a step, yielded before its backward pass is asked for."""
    import torch
    import torch.nn.functional as F

    from graftlab.models.arithmetic import fastest_autocast

    model: Any = load_naively(folder)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("adapter" in name)
    model.train()
    for module in model.modules():
        if hasattr(module, "is_observer_enabled"):
            module.is_observer_enabled = False
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR)
    for batch in batches:
        segments = (batch.positions == 0).cumsum(1)
        with fastest_autocast(torch.device("cpu")):
            logits = model(batch.input_ids, segment_ids=segments).logits
        loss = F.cross_entropy(logits[0].float(), batch.labels[0])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach()


def our_steps(folder: Path, batches: Iterator[Batch]) -> Iterator[Tensor]:
    """A run's step, without what stands around it."""
    import torch

    from graftlab.adapters.attach import attach
    from graftlab.adapters.lora import Lora
    from graftlab.models.arithmetic import fastest_autocast, has_bf16
    from graftlab.objectives.policy import Policy

    base = load_ours(folder, "bfloat16" if has_bf16(torch.device("cpu"))[0] else "float32")
    lora = Lora(rank=RANK, alpha=ALPHA, targets="all-linear")
    adapter = attach(base, lora, seed=0, dtype=torch.float32)
    policy = Policy(base, adapter)
    assert base.backend, "chosen before the first pass"
    base.set_checkpointing(False)
    parameters = [parameter for _, parameter in adapter.named_parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR)
    for batch in batches:
        with fastest_autocast(torch.device("cpu")):
            loss = policy.label_nll(batch) / batch.step_units
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach()


def measured(what: str, way: str, folder: Path, *, steps: int, length: int) -> dict[str, Any]:
    """One measurement, in this process."""
    import tamm.models.afm_text  # noqa: F401  imports are not what is measured
    import torch

    import graftlab.apple.base  # noqa: F401
    from graftlab.models.allocator import tune_allocator
    from graftlab.tracking.result import forget_peak, peak_rss_mb, resident_mb

    if way != "toolkit":
        tune_allocator()
    before = resident_mb()
    forget_peak()
    began = time.perf_counter()
    if what == "load":
        naive = way == "naive"
        model = load_naively(folder) if naive else load_ours(folder, way).model
        seconds = time.perf_counter() - began
        held = {t.data_ptr(): t.numel() * t.element_size() for t in model.state_dict().values()}
        size = sum(held.values()) / MIB
        if way == "float32":  # mapped, not read yet: reading it all is part of the load
            _ = [float(tensor.float().sum()) for tensor in model.state_dict().values()]
            seconds = time.perf_counter() - began
        return {"seconds": seconds, "peak": peak_rss_mb() - before, "weights": size}
    config = json.loads((folder / "base-model-config.json").read_text("utf-8"))
    batches = list(next_of(rows(int(config.get("vocab_size", 153_600)), length), steps))
    train = toolkit_steps if way == "toolkit" else our_steps
    times, losses = [time.perf_counter()], []
    for loss in train(folder, iter(batches)):
        losses.append(float(loss))
        times.append(time.perf_counter())
    speeds = [
        batch.num_tokens / (end - start)
        for batch, start, end in zip(batches, times, times[1:], strict=False)
    ]
    assert torch.isfinite(torch.tensor(losses)).all(), losses
    # The first step holds the load, and the allocator's first look at every size.
    return {"speed": statistics.median(speeds[1:]), "peak": peak_rss_mb() - before, "loss": losses}


def next_of(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    for _ in range(count):
        yield next(batches)


def run(*words: str) -> dict[str, Any]:
    """A measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def median(found: list[dict[str, Any]], key: str) -> float:
    return statistics.median(entry[key] for entry in found)


def load_table(folder: Path, *, rounds: int) -> list[str]:
    ways = ("naive", "float32", "bfloat16")
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way].append(run("load", way, str(folder), "0", "0"))
            print("  load", way, found[way][-1], flush=True)
    lines = [
        "| load | seconds | weights, MiB | peak, MiB | peak / weights |",
        "|---|--:|--:|--:|--:|",
    ]
    names = {"naive": "naive, fp32", "float32": "graftlab, fp32", "bfloat16": "graftlab, bf16"}
    for way in ways:
        peak, weights = median(found[way], "peak"), median(found[way], "weights")
        lines.append(
            f"| {names[way]} | {median(found[way], 'seconds'):.2f} | {weights:,.0f} | {peak:,.0f} "
            f"| **{peak / weights:.2f}** |"
        )
    return [*lines, ""]


def train_table(folder: Path, *, rounds: int, steps: int, length: int) -> list[str]:
    ways = ("toolkit", "graftlab")
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way].append(run("train", way, str(folder), str(steps), str(length)))
            print("  train", way, found[way][-1], flush=True)
    file = (folder / "base-model.pt").stat().st_size / MIB
    weights = {"toolkit": file, "graftlab": file / 2}
    lines = [
        f"| train, rows of {length:,} | tokens/s | ratio | peak, MiB "
        "| beyond the weights, MiB | ratio |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    speed = {way: median(found[way], "speed") for way in ways}
    beyond = {way: median(found[way], "peak") - weights[way] for way in ways}
    for way in ways:
        lines.append(
            f"| {way} | {speed[way]:,.0f} | **{speed[way] / speed['toolkit']:.2f}** "
            f"| {median(found[way], 'peak'):,.0f} | {beyond[way]:,.0f} "
            f"| **{beyond[way] / beyond['toolkit']:.2f}** |"
        )
    firsts = " and ".join(f"{found[way][0]['loss'][0]:.4f}" for way in ways)
    return [*lines, "", f"First losses: {firsts}.", ""]


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        what, way, folder, steps, length = sys.argv[2:7]
        found = measured(what, way, Path(folder), steps=int(steps), length=int(length))
        print(json.dumps(found))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps a run, the first left out")
    parser.add_argument("--write", action="store_true", help="keep the tables in results/")
    given = parser.parse_args()
    lines = [
        "# Apple's on-device model: loading and training",
        "",
        f"{machine()} Medians of {given.rounds} rounds in turn, a process each; peaks are resident "
        "memory above what the imported libraries take.",
        "",
    ]
    for size in given.only:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "assets"
            subprocess.run([sys.executable, __file__, "--make", str(folder), size], check=True)
            lines += [f"## {size}", ""]
            lines += load_table(folder, rounds=given.rounds)
            lines += train_table(folder, rounds=given.rounds, steps=given.steps, length=ROWS[size])
    publish(lines, "afm.md", write=given.write)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        write_model(Path(sys.argv[2]), sys.argv[3])
        sys.exit(0)
    sys.exit(main())
