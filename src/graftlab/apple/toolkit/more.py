"""Words that depend on several flags, or on what lies on the disk.

Each function takes the values of the flags and the keys that plain words have set already.
"""

from __future__ import annotations

import os.path
from pathlib import Path

from graftlab.apple.toolkit.flags import MISSING, Said, Values
from graftlab.apple.toolkit.places import (
    adapter_at,
    assets,
    draft_at,
    found_assets,
    knows_its_base,
)
from graftlab.errors import ConfigError

MODELS = ("afm-3b", "afm-mini")
"""The base, and the miniature that needs no assets."""


def model_words(values: Values, said: Said) -> list[str]:
    """`model=` and where its files are. Raises ConfigError where nobody has said it."""
    if "model" in said:
        return []
    model = values.get("model", MODELS[0]).replace("_", "-")
    if model not in MODELS:
        raise ConfigError(f"--model {model} is not one of {', '.join(MODELS)}.")
    if model != MODELS[0]:
        return [f"model={model}"]
    return [f"model={model}", *([] if "model.path" in said else [f"model.path={assets(values)}"])]


def run_words(values: Values, said: Said, *, run: str) -> list[str]:
    """The folder `run` of --checkpoint-dir. Raises ConfigError where a finished run is in it."""
    if "checkpoint-dir" not in values or "hydra.run.dir" in said:
        return []
    folder = Path(values["checkpoint-dir"]) / run
    finished = (folder.expanduser() / "result.json").exists()
    if finished and "resume" not in values and MISSING not in values:
        raise ConfigError(
            f"{folder} holds a finished run: choose another --checkpoint-dir, or move it away."
        )
    return [f"hydra.run.dir={folder}"]


def prompt_words(values: Values, said: Said) -> list[str]:
    """`prompts=` for a file, `prompt=` for a text."""
    prompt = values["prompt"]
    is_file = prompt.endswith((".jsonl", ".json")) or os.path.isfile(os.path.expanduser(prompt))
    return [f"{'prompts' if is_file else 'prompt'}={prompt}"]


def adapter_words(values: Values, said: Said, *, needs_base: bool = True) -> list[str]:
    """`adapter=`, and the base where no run of ours knows it.

    Not where it is neither needed nor at hand: an adapter's weights are exported without.
    """
    if "checkpoint" not in values:
        return model_words(values, said)
    adapter = adapter_at(values["checkpoint"], values)
    asked = "model" in values or "assets" in values
    wanted = needs_base or found_assets(values) is not None
    model = asked or (wanted and not knows_its_base(adapter))
    return [*(model_words(values, said) if model else []), f"adapter={adapter}"]


def draft_words(values: Values, said: Said, *, key: str = "draft") -> list[str]:
    """The draft, and how many of its tokens are drafted at once."""
    if "draft-checkpoint" not in values:
        return []
    number = values.get("num-draft-tokens")
    tokens = [] if number is None else [f"draft_tokens={number}"]
    return [f"{key}={draft_at(values['draft-checkpoint'], values)}", *tokens]


def drawing_words(values: Values, said: Said) -> list[str]:
    """`generation.top_k=`, which means nothing to a greedy reply."""
    greedy = float(values["temperature"]) == 0
    return [] if greedy else [f"generation.top_k={values['top-k']}"]


def student_words(values: Values, said: Said) -> list[str]:
    """The teacher, after which the draft is made; with its base, where no run of ours knows it."""
    teacher = adapter_at(values["checkpoint"], values)
    words = [f"objective.teacher={teacher}"]
    if "assets" not in values and knows_its_base(teacher):
        return words
    if values.get("model", MODELS[0]) != MODELS[0]:
        raise ConfigError(f"{teacher} is of no run here: --assets says which base it belongs to.")
    folder = assets(values)
    return [f"model.of={folder}", f"objective.base={folder}", *words]
