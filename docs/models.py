"""Write the table of docs/models.md: what becomes of each family of decoders.

Run as: make models, or python docs/models.py [MODEL_TYPE ...]

Each is built as a miniature and taken through graftlab (tests/family_trials.py; four minutes for
all). With model types given, their rows are printed and nothing is written. A slow test compares
every row with the page (tests/docs/test_models.py).
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # where the miniatures lie

from tables import table

from families import UNTRIED, families
from family_trials import Trial, trial

PAGE = Path(__file__).with_name("models.md")
START = "<!-- made by docs/models.py: run `make models`, do not edit below -->"
HEAD = ("`model_type`", "Known as", "Trains", "`lora.targets=auto` finds")

NAMES = {
    "bitnet": "BitNet b1.58 2B4T",
    "cohere": "Command R and R+",
    "cohere2": "Command R7B, Command A",
    "deepseek_v3": "DeepSeek V3, V3.1 and R1",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 270M and 1B",
    "glm": "GLM-4-9B",
    "glm4": "GLM-4-0414",
    "glm4_moe": "GLM-4.5, GLM-4.6",
    "glm4_moe_lite": "GLM-4.7-Flash",
    "gpt2": "GPT-2",
    "gpt-sw3": "GPT-SW3",
    "gpt_bigcode": "StarCoder, SantaCoder",
    "gpt_neox": "GPT-NeoX, Pythia",
    "gpt_oss": "gpt-oss 20b and 120b",
    "granite": "Granite 3 (dense)",
    "granitemoe": "Granite 3 (mixtures)",
    "granitemoehybrid": "Granite 4",
    "granitemoeshared": "Granite mixtures with a shared expert",
    "llama": "Llama 1 to 3.3, TinyLlama, SmolLM and SmolLM2, Yi",
    "minimax_m2": "MiniMax-M2",
    "mistral": "Mistral 7B, Mistral Nemo",
    "modernbert-decoder": "Ettin decoders",
    "nemotron": "Nemotron-4, Minitron",
    "phi": "Phi-1, Phi-1.5, Phi-2",
    "phi3": "Phi-3, Phi-3.5-mini, Phi-4, Phi-4-mini",
    "qwen2": "Qwen2, Qwen2.5 (Coder, Math), QwQ",
    "qwen2_moe": "Qwen1.5-MoE, Qwen2-57B-A14B",
    "qwen3_moe": "Qwen3-30B-A3B, Qwen3-235B-A22B",
}
"""What people call a family, where the example in transformers says less."""

REFUSALS = {
    "more than text": "more than text; take the text-only checkpoint of the family",
    "an encoder with a decoder": "an encoder with a decoder",
    "is no decoder": "an encoder, or another model that looks ahead",
    "draws at random": "sends tokens to experts drawn at random while it trains",
    "is no stack of": "several stacks over bytes instead of a decoder of tokens",
    "cannot be computed in": "is called in a way of its own",
    "is not supported": "no place for an adapter of PEFT's",
}
"""Refusals in short, by what their messages say."""


def known_as(model_type: str) -> str:
    """What people call it, else the model that transformers documents it with."""
    from transformers import CONFIG_MAPPING

    if model_type in NAMES:
        return NAMES[model_type]
    family = CONFIG_MAPPING[model_type]
    source = Path(inspect.getfile(family)).read_text(encoding="utf-8")
    before, _, _ = source.partition(f"class {family.__name__}(")
    examples = re.findall(r'checkpoint="[^"/]*/?([^"]+)"', before)
    return examples[-1] if examples else ""


def trains(found: Trial) -> str:
    """The third cell."""
    if found.trains == "packed":
        return "packed"
    if found.trains == "unpacked":
        return f"one conversation a row: {found.why}"
    short = [words for said, words in REFUSALS.items() if said in found.why]
    assert len(short) == 1, f"a refusal that is not known: {found.why}"
    return f"refused: {short[0]}"


def targets(found: Trial) -> str:
    return " ".join(f"`{name}`" for name in found.targets)


def rows(trials: dict[str, Trial]) -> list[tuple[str, ...]]:
    """A row for each family that trains, then one for each refusal."""
    order = {"packed": 0, "unpacked": 1}
    working = sorted(
        (order[found.trains], name) for name, found in trials.items() if found.trains in order
    )
    refused: dict[str, list[str]] = {}
    for name in sorted(trials.keys() - {name for _, name in working}):
        refused.setdefault(trains(trials[name]), []).append(name)
    return [
        *(
            (f"`{name}`", known_as(name), trains(trials[name]), targets(trials[name]))
            for _, name in working
        ),
        *((", ".join(f"`{n}`" for n in names), "", why, "") for why, names in refused.items()),
    ]


def on_page() -> dict[str, tuple[str, str]]:
    """Model type -> its cells of how it trains and what is found, as the page has them."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").partition(START)[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and cells[0] != HEAD[0]:
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), (cells[2], cells[3]))
    return found


def tried(names: Iterable[str]) -> dict[str, Trial]:
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            found[name] = trial(name, Path(place))
        print(f"{name}: {trains(found[name])}", flush=True)
    return found


def main() -> None:
    if chosen := sys.argv[1:]:
        print("\n".join(table(HEAD, rows(tried(chosen)))))
        return
    lines = table(HEAD, rows(tried(families())))
    before = PAGE.read_text(encoding="utf-8").partition(START)[0]
    PAGE.write_text(before + START + "\n".join(["", *lines]).rstrip() + "\n", encoding="utf-8")
    print(f"{PAGE}, without {', '.join(UNTRIED)}")


if __name__ == "__main__":
    main()
