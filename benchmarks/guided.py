"""What guided generation costs a token, beside a step of the model: masks, checks, vocabularies.

Run as: python benchmarks/guided.py [--replies 20]

A model of random numbers writes replies under several schemas, at temperature 1, so that as many
kinds of places as possible are met; budgets are ample first and then tight, as the search for ends
works the more the less room there is. Vocabularies: that of the tiny base, and one as large as
Apple's (153,600 pieces, made up). Times are the processor's own: a busy machine adds little.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from graftlab.generation.form import Form
from graftlab.generation.guide import make_guide
from graftlab.models.tiny import TinyModel
from graftlab.text.tokenizer import Tokenizer

TEXT = {"type": "string"}
TRACK = {
    "type": "object",
    "properties": {
        "title": TEXT,
        "year": {"type": "integer", "minimum": 1900, "maximum": 2030},
        "moods": {"type": "array", "items": {"enum": ["tense", "calm", "bright"]}, "minItems": 1},
        "label": {
            "type": "object",
            "properties": {"name": TEXT, "city": TEXT},
            "required": ["name"],
        },
        "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{6}$"},
    },
    "required": ["title", "year", "moods", "label", "code"],
    "additionalProperties": False,
}
SCHEMAS = {"track": TRACK, "list of tracks": {"type": "array", "items": TRACK, "minItems": 2}}


@dataclass
class MadeUp:
    """A vocabulary of the given size: bytes, then words of two and three syllables."""

    size: int
    stop_ids: tuple[int, ...] = (0,)
    markers: dict[str, int] = field(default_factory=lambda: {"<end>": 0})

    @property
    def fingerprint(self) -> str:
        return f"made up {self.size}"

    def token_bytes(self) -> list[bytes | None]:
        bytes_ = [bytes([byte]) for byte in range(256)]
        return list(itertools.islice(itertools.chain([None], bytes_, self._words()), self.size))

    def _words(self) -> Iterator[bytes]:
        yield from (mark.encode() for mark in ('":', '": "', '", "', '",', '"}', '"]', "},", " {"))
        syllables = [a + b for a in "bcdfghjklmnpqrstvwz" for b in ("a", "e", "i", "o", "u", "en")]
        for length in (2, 3):
            for parts in itertools.product(syllables, repeat=length):
                yield from (("".join(parts)).encode(), (" " + "".join(parts)).encode())


def measure(form: Form, budget: int, replies: int) -> dict[str, list[float]]:
    """Seconds of every mask and every check, and of a reply's worst token."""
    width = len(form.vocabulary.bytes)
    found: dict[str, list[float]] = {"mask": [], "accept": [], "worst": []}
    generator = torch.Generator().manual_seed(0)
    for _ in range(replies):
        guide, worst = make_guide(form, budget, width=width), 0.0
        while not guide.done and guide.budget > len(guide.steps):
            spent, taken = 0.0, False
            while not taken:
                start = time.thread_time()
                mask = guide.mask()
                masked = time.thread_time()
                scores = torch.randn(width, generator=generator).masked_fill(~mask, -torch.inf)
                token = int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
                drawn = time.thread_time()
                taken = guide.accept(token)
                found["mask"].append(masked - start)
                found["accept"].append(time.thread_time() - drawn)
                spent += found["mask"][-1] + found["accept"][-1]
            worst = max(worst, spent)
        found["worst"].append(worst)
    return found


def model_step() -> float:
    """Seconds of one token of the tiny base behind a prompt, the median of thirty."""
    base = TinyModel().load(dtype=torch.float32, device=torch.device("cpu"))
    times = []
    with base.context() as context:
        context.feed(torch.ones((1, 100), dtype=torch.long), last=1)
        for _ in range(30):
            start = time.thread_time()
            context.feed(torch.ones((1, 1), dtype=torch.long), last=1)
            times.append(time.thread_time() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--replies", type=int, default=20)
    replies = parser.parse_args().replies
    torch.set_num_threads(1)
    step = model_step()
    print(f"a step of the tiny base, one thread: {step * 1e3:.2f} ms\n")
    print("| vocabulary | schema | room | tokens | mask, ms | check, ms | worst token, ms |")
    print("|---|---|---|---:|---:|---:|---:|")
    vocabularies: list[Any] = [TinyModel().load_tokenizer(), MadeUp(153_600)]
    for tokenizer, (name, schema) in itertools.product(vocabularies, SCHEMAS.items()):
        start = time.thread_time()
        form = Form(schema, tokenizer)
        built = time.thread_time() - start
        size = tokenizer.vocab_size if isinstance(tokenizer, Tokenizer) else tokenizer.size
        for room, budget in (("ample", form.least + 400), ("tight", form.least + 10)):
            found = measure(form, budget, replies)
            told = [statistics.fmean(found[what]) * 1e3 for what in ("mask", "accept")]
            worst = statistics.median(found["worst"]) * 1e3
            print(
                f"| {size:,} | {name} | {room} | {len(found['mask']):,} | {told[0]:.2f} | "
                f"{told[1]:.2f} | {worst:.1f} |",
                flush=True,
            )
        print(f"<!-- form built in {built * 1e3:.0f} ms -->", flush=True)


if __name__ == "__main__":
    main()
