"""What one node per adapted linear and layers that keep little give: one step, in one process.

Run as:  python benchmarks/step_parts.py [--precision bf16-mixed] [--documents 2] [--rounds 5]

The base and chats of `train_throughput.py`, uncompiled, one thread, processor time. All ways take
turns and ratios are taken within a turn. Kept is what autograd holds of the layers meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from arena import machine
from peft.tuners.lora.layer import Linear
from workload import MAX_LENGTH, RANK, make

from graftlab.adapters.attach import attach
from graftlab.adapters.linear import AdaptedLinear
from graftlab.adapters.lora import Lora
from graftlab.data.jsonl import JsonlData
from graftlab.models.allocator import tune_allocator
from graftlab.models.hf import HFModel
from graftlab.models.recompute import keep_little, restore_modules
from graftlab.objectives.policy import Policy
from graftlab.packing.rows import make_batch
from graftlab.text.encode import encode
from graftlab.text.load import load_tokenizer
from graftlab.training.precision import Precision, resolve

WAYS = {
    "PEFT's modules": (Linear, restore_modules),
    "one node each": (AdaptedLinear, restore_modules),
    "and layers that keep little": (AdaptedLinear, keep_little),
}


class Step:
    """Forward and backward pass of one packed row."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        device = torch.device("cpu")
        self.precision = resolve(Precision(name=asked.precision), device)
        workload = make(folder, profile="chats", documents=asked.documents)
        self.base = HFModel(path=str(workload.base)).load(
            dtype=self.precision.base_dtype, device=device
        )
        self.adapter: Any = attach(
            self.base, Lora(rank=RANK), seed=0, dtype=self.precision.adapter_dtype
        )
        self.base.set_checkpointing(False)
        chats = JsonlData(train=str(workload.chats), valid_fraction=0.0).load().train
        tokenizer = load_tokenizer(workload.base)
        tokens = encode(chats, tokenizer, max_length=MAX_LENGTH, over_limit="error")
        self.batch = make_batch(tokens, list(range(len(tokens))), step_units=100)
        self.policy = Policy(self.base, self.adapter)

    def take(self, way: str) -> None:
        kind, settle = WAYS[way]
        settle(self.base)
        for layer in self.adapter.layers.values():
            layer.__class__ = kind

    def seconds(self, way: str) -> float:
        self.take(way)
        start = time.process_time()
        with self.precision.autocast():
            loss = self.policy.label_nll(self.batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return time.process_time() - start

    def kept(self, way: str) -> float:
        """MiB, without the weights."""
        self.take(way)
        weights = {p.untyped_storage().data_ptr() for p in self.base.model.parameters()}
        found: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, self.precision.autocast():
            self.policy.hidden(self.batch)
        return sum(found.values()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--documents", type=int, default=2, help="of about 1,100 tokens each")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        step = Step(Path(scratch), asked)
        kept = {way: step.kept(way) for way in WAYS}
        for way in WAYS:
            step.seconds(way)  # warm
        rounds = [{way: step.seconds(way) for way in WAYS} for _ in range(asked.rounds)]
    first = next(iter(WAYS))
    print(f"{machine()} One thread, {asked.precision}, {step.batch.num_tokens:,} tokens.\n")
    print("| | s | speed | (worst to best round) | kept, MiB | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for way in WAYS:
        ratios = sorted(turn[first] / turn[way] for turn in rounds)
        seconds = statistics.median(turn[way] for turn in rounds)
        print(
            f"| {way} | {seconds:.2f} | **{statistics.median(ratios):.2f}** | {ratios[0]:.2f} to "
            f"{ratios[-1]:.2f} | {kept[way]:,.0f} | {kept[way] / kept[first]:.2f} |"
        )


if __name__ == "__main__":
    main()
