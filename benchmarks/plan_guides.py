"""What `graftlab plan` says of the runs of three guides, and of a measurement by others.

Run as: python benchmarks/plan_guides.py        prints the tables of docs/plan.md

Nothing is measured and no weight is loaded: a test compares docs/plan.md with these tables, so that
it says what the tool says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftlab.cli.compose import build, compose
from graftlab.machine import GIB
from graftlab.planning.estimate import estimate_run

if TYPE_CHECKING:
    from graftlab.planning.plan import Plan

QWEN25 = {
    "7B": "hidden_size=3584 layers=28 heads=28 key_heads=4 feed_forward=18944 vocab_size=152064",
    "14B": "hidden_size=5120 layers=48 heads=40 key_heads=8 feed_forward=13824 vocab_size=152064",
    "32B": "hidden_size=5120 layers=64 heads=40 key_heads=8 feed_forward=27648 vocab_size=152064",
}
QWEN = "hidden_size=4096 layers=32 heads=32 key_heads=32 feed_forward=11008 vocab_size=151936"
HAFS = [
    (("7B", 32, 4), "8 GB", "1,000 tok/s"),
    (("7B", 64, 4), "10 GB", "800 tok/s"),
    (("14B", 32, 2), "12 GB", "500 tok/s"),
    (("14B", 64, 2), "16 GB", "400 tok/s"),
    (("32B", 32, 1), "18 GB and more", '"too tight"'),
]
"""Base, rank and batch size, and what the hafs guide says of memory and speed."""
THEOLOGIAN = [
    ((), "16 GB and more, 32 GB recommended"),
    (("lora.rank=32",), "when out of memory"),
    (("lora.rank=16",), "then"),
    (("lora.rank=16", 1024), "`max_seq_length: 1024`"),
    (
        ("lora.layers=16", "lora.rank=16", 1024),
        "16 layers: mlx_lm's default",
    ),
]
"""Words and length of the rows (2,048 unless told), and what the Theologian reference says."""
FAST = ("batch_size=2", "accumulate=2", "model.gradient_checkpointing=false")
"""Pieces that fit on a card of 80 GB as they are: the same update as batch_size=4."""


def ficino() -> list[str]:
    """Rows for the Ficino guide, Apple's 3B base on an H100."""
    plan = planned("experiment=ficino", "machine=h100")
    fast = planned("experiment=ficino", "machine=h100", *FAST)
    whole = planned("experiment=ficino", "machine=h100", FAST[-1])
    too_much = f"{whole.memory.total / GIB:.1f} GiB: too much"
    assert plan.bill
    assert fast.bill
    assert plan.fits
    assert fast.fits
    assert not whole.fits
    per_step = plan.load.tokens_per_step / plan.load.mean_length
    minutes, quick = round(plan.bill.hours * 60), round(fast.bill.hours * 60)
    # The guide's price per hour, not that of our list.
    cost, cheap = plan.bill.hours * 2.5, fast.bill.hours * 2.5
    return [
        f"| Trainable parameters | 66.6M | {plan.shape.trainable:,} | |",
        f"| Steps | 1,785 | {plan.load.steps:,} | |",
        f"| Conversations per step | about 14 | {per_step:.1f} | |",
        f"| Memory | | {plan.memory.total / GIB:.1f} GiB | {fast.memory.total / GIB:.1f} GiB |",
        f"| Time on an H100 | 1.5 to 2 h | {minutes} min | {quick} min |",
        f"| Cost at 2.50 USD/h | 4 to 5 USD | {cost:.2f} USD | {cheap:.2f} USD |",
        f"| Rows of 4 at once, nothing recomputed | | | {too_much} |",
    ]


def hafs() -> list[str]:
    """Rows for the hafs guide: conversations of 1,024 tokens, half of them trained."""
    rows = []
    for (size, rank, batch), memory, speed in HAFS:
        words = (
            *("experiment=hafs-coder", f"lora.rank={rank}", f"batch_size={batch}"),
            *(*architecture(QWEN25[size]), *profile(1024), "machine=rtx-4070-ti-super"),
        )
        plan = planned(*words)
        eight = planned(*words, "quantization=int8")
        four = planned(*words, "quantization=nf4")
        assert plan.bill
        rate = round(plan.bill.tokens_per_second, -1)
        rows.append(
            f"| {size}, {rank}, {batch} | {memory} | {plan.memory.total / GIB:.1f} GiB "
            f"| {eight.memory.total / GIB:.1f} GiB | {four.memory.total / GIB:.1f} GiB "
            f"| {speed} | {rate:,.0f} tok/s |"
        )
    return rows


def theologian() -> list[str]:
    """Rows for the Theologian reference, a 4-bit 14B base on a Mac: every row is full."""
    rows = []
    for given, said in THEOLOGIAN:
        words = [word for word in given if isinstance(word, str)]
        length = next((word for word in given if isinstance(word, int)), 2048)
        run = ("experiment=systems-theologian", *words, *profile(length))
        small, large = (planned(*run, f"machine={mac}") for mac in ("m2-16gb", "m3-max-36gb"))
        wide = planned(*run, "quantization=none", "machine=m2-16gb")
        assert large.bill
        named = " ".join(f"`{word}`" for word in words) or "as it is, rank 64"
        rows.append(
            f"| {named}, {length:,} tokens | {said} | {wide.memory.total / GIB:.1f} GiB "
            f"| {small.memory.total / GIB:.1f} GiB | {'yes' if small.fits else 'no'} "
            f"| {'yes' if large.fits else 'no'}, {large.bill.hours:.0f} h |"
        )
    return rows


def qwen() -> list[str]:
    """Seconds a step and memory of LoRA on Qwen-7B, one A100, eight rows, checkpointing."""
    rows = []
    for length, measured in ((1024, 2.8), (2048, 5.2), (4096, 10.1), (8192, 21.3)):
        plan = planned(
            *("model=hf", "model.hub=Qwen/Qwen-7B", "model.gradient_checkpointing=true"),
            *("data=jsonl", "packing=none", "precision=bf16-mixed", "lora.rank=64"),
            *("batch_size=1", "accumulate=8", "machine=a100-80gb"),
            *(*architecture(QWEN), *profile(length)),
        )
        assert plan.bill
        memory = plan.memory.total / 1e9
        rows.append(
            f"| {length:,} | {measured} s | {plan.bill.seconds_per_step:.1f} s | {memory:.1f} GB |"
        )
    return rows


def planned(*words: str) -> Plan:
    """The plan of `graftlab plan WORDS`."""
    return estimate_run(build(compose("plan", list(words))))


def architecture(sizes: str) -> list[str]:
    return [f"model.architecture.{size}" for size in (*sizes.split(), "tied=false")]


def profile(length: int) -> list[str]:
    about = f"documents=1000 mean={length} answer={length // 2}".split()
    return [f"packing.max_length={length}", *(f"data.profile.{fact}" for fact in about)]


if __name__ == "__main__":
    print("\n\n".join("\n".join(rows()) for rows in (ficino, hafs, theologian, qwen)))
