"""A million short conversations through mix, dedupe, split and tokenize: time and memory.

Three sources (8 : 1 : 1 by size, mixed 6 : 3 : 1) with 4 % exact and 4 % near duplicates and 1 %
bad lines. Each stage is a process of its own, so its peak memory is its own; within `prepare`, a
step lasts from its first record to its last, which overlaps with the steps it feeds.

Run as:
    python benchmarks/prepare_scale.py --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = {"core": 0.8, "markdown": 0.1, "guard": 0.1}
WEIGHTS = {"core": 6, "markdown": 3, "guard": 1}
VOCABULARY = 30_000
EXACT, NEAR, BAD = 0.04, 0.04, 0.01


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def lines(count: int, seed: str) -> Iterator[str]:
    """Conversations of 20 to 80 words, some of them repeated, nearly repeated or broken."""
    rng = random.Random(seed)
    words = [f"{'aeiou'[n % 5]}{n:x}" for n in range(VOCABULARY)]
    cumulative = list(accumulate(1 / (n + 10) for n in range(VOCABULARY)))
    recent: list[tuple[list[str], list[str]]] = []
    for _ in range(count):
        fate = rng.random()
        if fate < BAD:
            yield '{"messages": [{"role": "user", "content": {"nested": true}}]}\n'
            continue
        if recent and fate < BAD + EXACT + NEAR:
            question, answer = (list(part) for part in rng.choice(recent))
            if fate < BAD + NEAR:
                answer[rng.randrange(len(answer))] = "changed"
        else:
            drawn = rng.choices(words, cum_weights=cumulative, k=rng.randint(20, 80))
            question, answer = drawn[:8], drawn[8:]
            recent.append((question, answer))
            if len(recent) > 5000:
                recent[rng.randrange(5000)] = recent.pop()
        turns = [
            {"role": "user", "content": " ".join(question).capitalize() + "?"},
            {"role": "assistant", "content": " ".join(answer).capitalize() + "."},
        ]
        yield json.dumps({"messages": turns}) + "\n"


def make(folder: Path, rows: int) -> dict[str, Any]:
    """Write the inputs, one file per source."""
    for name, share in SOURCES.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(lines(round(rows * share), name))
    return {"input MB": sum(p.stat().st_size for p in folder.glob("*.jsonl")) / 1e6}


def prepare(folder: Path, rows: int) -> dict[str, Any]:
    """The whole of `graftlab prepare`, with the span of every step."""
    from graftlab.files.building import building
    from graftlab.recipes.key import key_of
    from graftlab.recipes.manifest import write
    from graftlab.recipes.mix import Mix
    from graftlab.recipes.prepare import pipeline
    from graftlab.recipes.sources import SourceSpec
    from graftlab.recipes.spec import PrepareSpec

    spec = PrepareSpec(
        sources={name: SourceSpec(files=str(folder / f"{name}.jsonl")) for name in SOURCES},
        mix=Mix(weights=WEIGHTS),
        out=str(folder / "made"),
    )
    walk = pipeline(spec)
    begun = time.perf_counter()
    spans: dict[str, list[float]] = {}

    def look() -> None:
        now = time.perf_counter() - begun
        for tally in walk.tallies:
            if tally.taken and (tally.step not in spans or not tally.finished):
                spans.setdefault(tally.step, [now, now])[1] = now

    walk.watch = look
    with building(folder / "made") as draft:
        found = walk.run(draft, sides=["train", "valid"])
        write(draft, spec, key_of(spec), walk.tallies, found)
    steps = [
        {
            "step": tally.step,
            "in": tally.taken.total(),
            "dropped": dict(tally.reasons),
            "out": tally.given.total(),
            "from s": round(spans.get(tally.step, [0, 0])[0], 1),
            "to s": round(spans.get(tally.step, [0, 0])[1], 1),
        }
        for tally in walk.tallies
    ]
    return {"rows in": rows, "rows out": found["train"].total(), "steps": steps}


def tokenize(folder: Path, rows: int) -> dict[str, Any]:
    """`data=prepared` read and encoded with the tokenizer of the embedded base."""
    from graftlab.data.prepared import PreparedData
    from graftlab.models.tiny import TinyModel
    from graftlab.text.encode import encode

    begun = time.perf_counter()
    tokenizer = TinyModel().load_tokenizer()
    data = PreparedData(path=str(folder / "made")).load(reserved=tokenizer.reserved)
    loaded, memory = time.perf_counter() - begun, peak_mb()
    tokens = encode(data.train, tokenizer, max_length=2048, cache=folder / "cache")
    return {
        "load s": round(loaded, 1),
        "load peak MB": round(memory),
        "documents": len(tokens),
        "tokens": int(tokens.lengths.sum()),
    }


STAGES = {"make": make, "prepare": prepare, "tokenize": tokenize}


def measured(stage: str, folder: Path, rows: int) -> dict[str, Any]:
    """One stage in a process of its own."""
    command = [sys.executable, __file__, "--rows", str(rows), "--stage", stage]
    source = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "--folder", str(folder)],
        env={**os.environ, "PYTHONPATH": source, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        begun = time.perf_counter()
        found = STAGES[options.stage](options.folder, options.rows)
        spent = {"seconds": round(time.perf_counter() - begun, 1), "peak MB": round(peak_mb())}
        print(json.dumps(spent | found))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        for stage in STAGES:
            found = measured(stage, Path(scratch), options.rows)
            steps = found.pop("steps", [])
            print(f"{stage:10}" + "  ".join(f"{key} {value:,}" for key, value in found.items()))
            for step in steps:
                print("    " + "  ".join(f"{key} {value}" for key, value in step.items()))


if __name__ == "__main__":
    main()
