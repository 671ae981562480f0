"""Words that depend on several flags, or on what lies on the disk.

Each function takes the values of the flags and the keys that plain words have set already.
"""

from __future__ import annotations

from pathlib import Path

from graftlab.apple.toolkit.flags import MISSING, Said, Values
from graftlab.apple.toolkit.places import (
    ADAPTER_RUN,
    DRAFT_RUN,
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


def run_words(values: Values, said: Said) -> list[str]:
    """The folder of an adapter's run."""
    return _run_words(values, said, ADAPTER_RUN)


def draft_run_words(values: Values, said: Said) -> list[str]:
    """The folder of a draft's run."""
    return _run_words(values, said, DRAFT_RUN)


def prompt_words(values: Values, said: Said) -> list[str]:
    """`prompts=` for a file, `prompt=` for a text."""
    prompt = values["prompt"]
    is_file = prompt.endswith((".jsonl", ".json")) or _is_file(prompt)
    return [f"{'prompts' if is_file else 'prompt'}={prompt}"]


def adapter_words(values: Values, said: Said) -> list[str]:
    """`adapter=`, and the base where no run of ours knows it."""
    if "checkpoint" not in values:
        return model_words(values, said)
    adapter = adapter_at(values["checkpoint"], values)
    asked = "model" in values or "assets" in values
    model = model_words(values, said) if asked or not knows_its_base(adapter) else []
    return [*model, f"adapter={adapter}"]


def exported_words(values: Values, said: Said) -> list[str]:
    """`adapter=`, and the base where it is at hand: an adapter's weights are exported without."""
    adapter = adapter_at(values["checkpoint"], values)
    asked = "model" in values or "assets" in values
    at_hand = not knows_its_base(adapter) and found_assets(values) is not None
    return [*(model_words(values, said) if asked or at_hand else []), f"adapter={adapter}"]


def draft_words(values: Values, said: Said) -> list[str]:
    """`draft=` and how many tokens are drafted at once."""
    if "draft-checkpoint" not in values:
        return []
    number = values.get("num-draft-tokens")
    tokens = [] if number is None else [f"draft_tokens={number}"]
    return [f"draft={draft_at(values['draft-checkpoint'], values)}", *tokens]


def packed_draft_words(values: Values, said: Said) -> list[str]:
    """`target.draft=`, the draft that goes into a package."""
    if "draft-checkpoint" not in values:
        return []
    return [f"target.draft={draft_at(values['draft-checkpoint'], values)}"]


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


def _run_words(values: Values, said: Said, run: str) -> list[str]:
    """Raises ConfigError where a finished run would be in the way."""
    if "checkpoint-dir" not in values or "hydra.run.dir" in said:
        return []
    folder = Path(values["checkpoint-dir"]) / run
    finished = (folder.expanduser() / "result.json").exists()
    if finished and "resume" not in values and MISSING not in values:
        raise ConfigError(
            f"{folder} holds a finished run: choose another --checkpoint-dir, or move it away."
        )
    return [f"hydra.run.dir={folder}"]


def _is_file(prompt: str) -> bool:
    try:
        return Path(prompt).expanduser().is_file()
    except OSError:  # a text that is too long for a name
        return False
