"""The embedded default, as `make train` runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from demo_assets.conversations import MARKERS
from graftlab.cli.compose import build, compose
from graftlab.training.start import run

PROMPTS = 8
SHORTER = ["epochs=2", "callbacks.validation.every_epochs=null"]
"""One epoch is too short: six of eight replies have the voice, and none has the facts."""


def replies(samples: str, speaker: str) -> list[str]:
    """What `speaker` (prompt, base or adapter) says in a samples.md, one text per prompt."""
    return re.findall(rf"\*\*{speaker}\*\*\n\n((?:>.*\n)+)", samples)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("given", [SHORTER, pytest.param([], marks=pytest.mark.slow)])
def test_the_default_takes_on_the_voice_and_keeps_the_facts(
    given: list[str], tmp_path: Path
) -> None:
    """After two thirds of its steps already, and after all of them."""
    words = [*given, "logger=csv", f"callbacks.samples.prompts={PROMPTS}"]
    result = run(build(compose("train", [*words, f"run_dir={tmp_path / 'run'}"])).training())
    assert result.score is not None
    assert result.baseline is not None
    assert result.score < 0.1 * result.baseline

    samples = (tmp_path / "run" / "samples.md").read_text(encoding="utf-8")
    prompts, base, adapter = (replies(samples, name) for name in ("prompt", "base", "adapter"))
    assert len(prompts) == len(base) == len(adapter) == PROMPTS

    def in_voice(reply: str) -> bool:
        found = sum(marker in reply.lower() for marker in MARKERS)
        return found >= (1 if given else 2)  # after two thirds the lines are still mixed up

    assert not any(in_voice(reply) for reply in base)
    assert sum(in_voice(reply) for reply in adapter) >= PROMPTS - 1
    titles = [re.search(r'title"?: "?([^;"\n]+)', prompt, re.IGNORECASE) for prompt in prompts]
    named = [
        title is not None and title[1] in reply
        for title, reply in zip(titles, adapter, strict=True)
    ]
    assert sum(named) >= PROMPTS / 2
