"""Speculative decoding against plain decoding with the KV cache, on the processor.

teacher   the embedded base with the adapter that `graftlab train` makes of the demo
base      the very same function in 81 million parameters (growing.py), whose weights cost what a
          real model's do; its logits are compared with the teacher's before anything is timed
draft     a fresh model, 66 times smaller, distilled from the teacher by `experiment=draft` on 4,000
          more conversations of the demo's kind

Held-out prompts of the demo are answered plainly and with each draft in turn, in fp32 and in bf16.
Time is taken twice: by the clock, and as processor time, which other work on the machine disturbs
less.

Run as:
    export PYTHONPATH=tools                                # more of the demo's conversations
    python benchmarks/speculative.py FOLDER                # trains into FOLDER what is not there
    python benchmarks/speculative.py FOLDER --write        # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from arena import machine, publish
from growing import fuse, grow

from demo_assets.conversations import ASSETS, demo_conversation, jsonl
from demo_assets.grammar import Pen
from demo_assets.tracks import track
from graftlab.cli.compose import build, compose
from graftlab.generation.decode import Reply, generate
from graftlab.generation.prompts import Prompt, read_prompts
from graftlab.generation.sampling import Generation
from graftlab.generation.speculative import Draft
from graftlab.models.arithmetic import has_bf16
from graftlab.models.base import Base
from graftlab.models.hf import HFModel
from graftlab.models.tiny import TinyModel
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from graftlab.training.start import run

CPU = torch.device("cpu")
SIZE = {"hidden": 768, "intermediate": 2048, "layers": 12}
DRAFT = ["model.layers=2", "model.hidden=160"]
# From random weights the forward divergence learns faster, and a short warm-up is enough.
SHARED = ["experiment=draft", *DRAFT, "objective.divergence=forward", "packing.max_length=1024"]
FIRST = ["lr=3e-3", "epochs=2", "schedule.warmup_epochs=0.1"]
LAST = ["lr=2e-3", "max_steps=400", "schedule=cosine", "schedule.warmup_epochs=null"]
LAST += ["schedule.warmup_steps=20"]
PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of decoding."""

    name: str
    draft: Draft | None


@dataclass(slots=True)
class Told:
    """What was measured of one contestant."""

    seconds: list[float]
    """By the clock, one a round."""
    processor: list[float]
    """Of all threads, one a round."""
    tokens: int
    rounds: int
    proposed: int
    accepted: int
    same: int
    """Replies equal to the plain ones."""


def train(folder: Path, *overrides: str) -> Path:
    """The run in `folder`, finished before or now."""
    if not (folder / "result.json").is_file():
        quiet = ("precision=fp32", "callbacks.samples.prompts=0", f"run_dir={folder}")
        run(build(compose("train", [*overrides, *quiet])).training())
    return folder


def models(root: Path) -> dict[str, Path]:
    """Model folders: the grown base, the fresh draft and the distilled one."""
    teacher = train(root / "teacher")
    data = root / "train.jsonl"
    if not data.is_file():
        pen = Pen(1, "speculative", "train")
        data.write_text(jsonl([demo_conversation(pen, track(pen)) for _ in range(4000)]))
    distil = [*SHARED, f"objective.teacher={teacher}", f"data.train={data}"]
    distil += [f"data.valid={ASSETS / 'valid.jsonl'}"]
    first = train(root / "draft-first", *distil, *FIRST)
    distilled = train(root / "draft", *distil, *LAST, f"lora.from_run={first}")
    grown = root / "grown"
    if not (grown / "config.json").is_file():
        small = TinyModel().load(dtype=torch.float32, device=CPU)
        fuse(small.model, teacher)
        large = grow(small.model, **SIZE)
        large.save_pretrained(grown)
        load_tokenizer(teacher / "adapter").save(grown)
    fresh = build(compose("train", [*distil, "run_dir=unused"])).training().model.folder()
    return {"grown": grown, "fresh draft": fresh, "distilled draft": distilled / "adapter"}


def load(folder: Path, dtype: torch.dtype) -> Base:
    return HFModel(path=str(folder)).load(dtype=dtype, device=CPU)


def require_same_function(
    base: Base, teacher: Path, prompts: list[Prompt], tokenizer: Tokenizer
) -> None:
    """The grown base must say what base and adapter say."""
    small = TinyModel().load(dtype=torch.float32, device=CPU)
    fuse(small.model, teacher)
    for prompt in prompts[:4]:
        ids = torch.tensor([tokenizer.render(prompt.conversation.messages, generation_prompt=True)])
        with small.context() as ours, base.context() as grown:
            apart = (ours.feed(ids) - grown.feed(ids)).abs().max()
        assert apart < 1e-3, f"the grown base computes something else ({apart:.1e} apart)"


def measure(
    base: Base,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    contestants: list[Contestant],
    *,
    wanted: Generation,
    rounds: int,
) -> dict[str, Told]:
    """All contestants on every prompt in turn, `rounds` times."""
    told = {c.name: Told([], [], 0, 0, 0, 0, 0) for c in contestants}
    for contestant in contestants:
        generate(base, tokenizer, prompts[0].conversation, wanted, draft=contestant.draft)
    for _ in range(rounds):
        spent = {name: [0.0, 0.0] for name in told}
        for prompt in prompts:
            plain: Reply | None = None
            for contestant in contestants:
                start = time.perf_counter(), time.process_time()
                reply = generate(
                    base, tokenizer, prompt.conversation, wanted, draft=contestant.draft
                )
                spent[contestant.name][0] += time.perf_counter() - start[0]
                spent[contestant.name][1] += time.process_time() - start[1]
                plain = plain or reply
                note(told[contestant.name], reply, plain)
        for name, (seconds, processor) in spent.items():
            told[name].seconds.append(seconds)
            told[name].processor.append(processor)
    return told


def note(told: Told, reply: Reply, plain: Reply) -> None:
    told.tokens += reply.num_tokens
    told.same += reply.text == plain.text
    if reply.speculated is not None:
        told.rounds += reply.speculated.rounds
        told.proposed += reply.speculated.proposed
        told.accepted += reply.speculated.accepted


def table(title: str, told: dict[str, Told], *, rounds: int, prompts: int) -> list[str]:
    lines = [f"### {title}", ""]
    lines += [
        "| | tokens/s | speed-up | by processor time | accepted | tokens a pass | same replies |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    speeds = {
        name: [each.tokens / rounds / median(times) for times in (each.seconds, each.processor)]
        for name, each in told.items()
    }
    for name, each in told.items():
        clock, processor = (ours / plain for ours, plain in zip(*_pair(speeds, name), strict=True))
        share = f"{each.accepted / each.proposed:.0%}" if each.proposed else "-"
        passes = f"{each.tokens / each.rounds:.2f}" if each.rounds else "1"
        lines.append(
            f"| {name} | {speeds[name][0]:.1f} | **{clock:.2f}** | **{processor:.2f}** | {share} "
            f"| {passes} | {each.same // rounds} of {prompts} |"
        )
    return [*lines, ""]


def _pair(speeds: dict[str, list[float]], name: str) -> tuple[list[float], list[float]]:
    return speeds[name], speeds[PLAIN]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where models are trained to, and found again")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draft-tokens", type=int, nargs="+", default=[3, 5, 7])
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    arguments = parser.parse_args()
    folders = models(arguments.folder.resolve())
    tokenizer = load_tokenizer(folders["grown"])
    prompts = read_prompts(str(ASSETS / "valid.jsonl"), limit=arguments.prompts)
    tables: list[str] = []
    bf16 = [torch.bfloat16] if has_bf16(torch.device("cpu"))[0] else []
    for dtype in (torch.float32, *bf16):
        base, fresh, distilled = (load(folder, dtype) for folder in folders.values())
        if dtype == torch.float32:
            require_same_function(base, arguments.folder / "teacher", prompts, tokenizer)
        drafts = [
            Contestant(f"distilled draft, {count} tokens", Draft(distilled, count))
            for count in arguments.draft_tokens
        ]
        undistilled = Contestant("fresh draft, 5 tokens", Draft(fresh, 5))
        for title, temperature in (("greedy", 0.0), ("drawn at temperature 1", 1.0)):
            first = [undistilled] if not tables else []
            told = measure(
                base,
                tokenizer,
                prompts,
                [Contestant(PLAIN, None), *first, *drafts],
                wanted=Generation(max_new_tokens=160, temperature=temperature),
                rounds=arguments.rounds,
            )
            name = str(dtype).removeprefix("torch.")
            lines = table(f"{name}, {title}", told, rounds=arguments.rounds, prompts=len(prompts))
            print("\n".join(lines), flush=True)  # minutes pass before the next
            tables += lines
    ratio = base.num_parameters / distilled.num_parameters
    lines = [
        "# Speculative decoding against plain decoding",
        "",
        f"{machine()} {torch.get_num_threads()} threads. Base {base.num_parameters:,} "
        f"parameters, draft {distilled.num_parameters:,}: {ratio:.0f} : 1. {len(prompts)} held-out "
        f"prompts, {arguments.rounds} rounds in turn, medians; prompts included in the time. "
        "Both use a KV cache.",
        "",
    ]
    publish([*lines, *tables], "speculative.md", write=arguments.write)


if __name__ == "__main__":
    main()
