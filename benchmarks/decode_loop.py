"""The decode loop against Hugging Face's `generate`: greedy tokens/s of the embedded base.

Both read the same prompt and say the same tokens, in turn; medians of the rounds. The smaller the
model, the more a loop around it costs; so the tiniest base is the hardest judge.

Run as:
    python benchmarks/decode_loop.py
    python benchmarks/decode_loop.py --write               # keep the table in benchmarks/results/
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from arena import machine, publish
from transformers import GenerationConfig

from graftlab.generation.decode import generate, generate_batch
from graftlab.generation.sampling import Generation
from graftlab.models.base import Base
from graftlab.models.tiny import TinyModel
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation, Message

QUESTION = "Present this track. title: Salt Road; artist: Petra Novak; tempo: 74 BPM"
TOGETHER = 8


class Endless:
    """The tokenizer without stop tokens, so that every reply is as long as the others."""

    stop_ids = ()

    def __init__(self, inner: Tokenizer) -> None:
        self.render, self.decode = inner.render, inner.decode


def contestants(base: Base, tokenizer: Tokenizer) -> dict[str, Callable[[int], int]]:
    """Name -> a function that says so many tokens and returns how many it said in all."""
    ask = Conversation((Message("user", QUESTION),))
    prompt = torch.tensor([tokenizer.render(ask.messages, generation_prompt=True)])
    endless: Any = Endless(tokenizer)

    def theirs(tokens: int, rows: int = 1) -> int:
        ids = prompt.expand(rows, -1)
        config = GenerationConfig(
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0
        )
        with torch.no_grad(), base.plain():
            out = base.model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config
            )
        assert out.shape[1] == ids.shape[1] + tokens
        return rows * tokens

    def ours(tokens: int) -> int:
        return generate(base, endless, ask, Generation(max_new_tokens=tokens)).num_tokens

    def together(tokens: int) -> int:
        wanted = Generation(max_new_tokens=tokens)
        replies = generate_batch(base, endless, [ask] * TOGETHER, wanted)
        return sum(reply.num_tokens for reply in replies)

    return {
        "transformers generate": theirs,
        "graftlab": ours,
        f"transformers generate, {TOGETHER} rows": lambda tokens: theirs(tokens, TOGETHER),
        f"graftlab, batch={TOGETHER}": together,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=150, help="tokens of a reply")
    parser.add_argument("--write", action="store_true", help="keep the table in results/")
    arguments = parser.parse_args()
    spec = TinyModel()
    base = spec.load(dtype=torch.float32, device=torch.device("cpu"))
    speakers = contestants(base, spec.load_tokenizer())
    speeds: dict[str, list[float]] = {name: [] for name in speakers}
    for speak in speakers.values():
        speak(8)
    for _ in range(arguments.rounds):
        for name, speak in speakers.items():
            start = time.perf_counter()
            said = speak(arguments.tokens)
            speeds[name].append(said / (time.perf_counter() - start))
    lines = [
        "# Our decode loop against `generate`",
        "",
        f"{machine()} {torch.get_num_threads()} threads, fp32, the embedded base "
        f"({base.num_parameters:,} parameters), greedy, {arguments.tokens} tokens; "
        f"{arguments.rounds} rounds in turn, medians.",
        "",
        "| | tokens/s | ratio to `generate` |",
        "|---|---:|---:|",
    ]
    names = list(speakers)
    for name in names:
        reference = names[names.index(name) // 2 * 2]
        ratio = median(speeds[name]) / median(speeds[reference])
        lines.append(f"| {name} | {median(speeds[name]):,.0f} | **{ratio:.2f}** |")
    publish(lines, "decode_loop.md", write=arguments.write)


if __name__ == "__main__":
    main()
