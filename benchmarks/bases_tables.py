"""The tables of `bases.py`, from what its runs found."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from arena import shown
from bases_contestants import COMPILED, THEIRS

BESIDE = {"nf4": THEIRS[0], "int8": THEIRS[1], COMPILED: THEIRS[0]}
LOSS = {"length": 128, "steps": 100, "limit": 300}
"""Of the runs that end in a validation loss: tokens of a row, steps, conversations."""

Found = dict[str, list[dict[str, float]]]
"""Contestant -> what its runs found, one a round."""


def middle(runs: Sequence[dict[str, float]], key: str) -> float:
    return median(run[key] for run in runs)


def ratios(found: Found, name: str, other: str) -> list[float]:
    """Speeds beside another contestant's of the same round, from the worst."""
    pairs = zip(found[name], found[other], strict=False)
    return sorted(mine["speed"] / its["speed"] for mine, its in pairs)


def beyond_weights(name: str, found: Found, loaded: Found) -> float:
    stored = "nf4" if name == COMPILED else name
    return middle(found[name], "memory") - middle(loaded[stored], "held")


def loading_lines(loaded: Found) -> list[str]:
    layer = loaded["bf16"][0]["layer"]
    lines = [
        f"**Loading.** One decoder layer is {layer:.1f} MiB in fp32. The most counts pages of the "
        "process, not those of the file, in which a GGUF's blocks stay.",
        "",
        "| | weights, MiB | most while loading, MiB | over weights and a layer "
        "| the layers' matrices, x bf16 | s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in loaded.items():
        held, peak = middle(runs, "held"), middle(runs, "peak")
        lines.append(
            f"| {name} | {held:,.0f} | {peak:,.0f} | {peak / (held + layer):.2f} "
            f"| {middle(runs, 'share'):.3f} | {middle(runs, 'seconds'):.1f} |"
        )
    return [*lines, ""]


def training_lines(title: str, found: Found, loaded: Found) -> list[str]:
    first = next(iter(found))
    plain = beyond_weights(first, found, loaded)
    lines = [
        f"**Training, {title}.** Ratios are to {first}.",
        "",
        "| | tokens/s | ratio | (worst to best round) | memory beyond the weights, MiB | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in found.items():
        shares, beyond = ratios(found, name, first), beyond_weights(name, found, loaded)
        lines.append(
            f"| {name} | {shown(middle(runs, 'speed'))} | **{median(shares):.2f}** "
            f"| {shares[0]:.2f} to {shares[-1]:.2f} | {beyond:,.0f} "
            f"| {beyond / plain:.2f} |"
        )
    return [*lines, ""]


def loss_lines(lost: Found) -> list[str]:
    lines = [
        f"**Loss** on held-out conversations, after {LOSS['steps']} steps on the same rows of "
        f"{LOSS['length']} tokens.",
        "",
        "| | the base | trained | beside bf16 |",
        "|---|---:|---:|---:|",
    ]
    for name, runs in lost.items():
        base, trained = middle(runs, "baseline"), middle(runs, "loss")
        less = trained - middle(lost["bf16"], "loss")
        lines.append(f"| {name} | {base:.4f} | {trained:.4f} | {less:+.4f} |")
    return [*lines, ""]


def goals(runs: Sequence[tuple[str, Found, Found]], lost: Found) -> list[str]:
    """What was to be reached, the worst that was measured, and whether it was.

    `runs` are the case, what training found and what loading did, of each.
    """
    coded = ("nf4", "GGUF Q8_0", "GGUF Q4_K_M")
    loads = {id(loaded): loaded for _, _, loaded in runs}.values()
    told: dict[tuple[str, str], list[float]] = {
        ("nf4 and GGUF, speed beside bf16", ">= 0.75"): [
            median(ratios(found, name, "bf16"))
            for _, found, _ in runs
            for name in (found.keys() & set(coded) if "bf16" in found else ())
        ],
        ("4 bits, the layers' matrices, x bf16", "<= 0.35"): [
            middle(loaded[name], "share")
            for loaded in loads
            for name in loaded.keys() & {"nf4", "GGUF Q4_K_M"}
        ],
        ("most while loading, over weights and a layer", "<= 1.15"): [
            middle(loaded[name], "peak") / (middle(loaded[name], "held") + loaded[name][0]["layer"])
            for loaded in loads
            for name in loaded.keys() & {*coded, "int8"}
        ],
    }
    for case, found, loaded in runs:
        pairs = [(mine, its) for mine, its in BESIDE.items() if {mine, its} <= found.keys()]
        told[f"{case}: speed beside HF Trainer with bitsandbytes", ">= 2.5"] = [
            median(ratios(found, *pair)) for pair in pairs
        ]
        told[f"{case}: memory beyond the weights beside it", "<= 0.6"] = [
            beyond_weights(mine, found, loaded) / beyond_weights(its, found, loaded)
            for mine, its in pairs
        ]
    close = [name for name in ("int8", "GGUF Q8_0") if name in lost]
    told[f"{' and '.join(close)}, loss over bf16's, nats", "<= 0.02"] = [
        middle(lost[name], "loss") - middle(lost["bf16"], "loss") for name in close
    ]
    lines = [
        "## What was to be reached",
        "",
        "| | goal | measured, from the worst | |",
        "|---|---:|---:|---|",
    ]
    for (what, goal), values in told.items():
        sign, limit = goal.split()
        values = sorted(values, reverse=sign == "<=")
        met = [v <= float(limit) if sign == "<=" else v >= float(limit) for v in values]
        said = "yes" if all(met) else f"{sum(met)} of {len(met)}"
        if values:
            ends = " to ".join(f"{v:.3f}" for v in dict.fromkeys((values[0], values[-1])))
            lines.append(f"| {what} | {goal} | {ends} | {said} |")
    return [*lines, ""]
