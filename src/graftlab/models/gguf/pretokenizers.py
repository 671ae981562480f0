"""How a byte-level BPE splits text before it merges, by the name in `tokenizer.ggml.pre`.

The patterns are those of the models' own tokenizer.json, which llama.cpp follows under that name.
An unknown name is refused: another split gives other tokens, and a model that never saw them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.errors import ModelError, did_you_mean

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WITH_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION}"
QWEN2 = rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}|{_PUNCTUATION}"
TEKKEN = rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}|{_WITH_SLASH}"
GPT4O = (
    rf"{_START}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_START}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_WITH_SLASH}"
)
DIGIT = r"\p{N}"


@dataclass(frozen=True, slots=True)
class Splitting:
    """Patterns applied one after the other, each piece of text split by the next."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    """Whether a piece that is a token itself is taken for it, whatever the merges come to."""


SPLITTINGS = {
    "gpt-2": Splitting((GPT2,)),
    "smollm": Splitting((DIGIT, GPT2)),
    "starcoder": Splitting((DIGIT, GPT2)),
    "refact": Splitting((DIGIT, GPT2)),
    "command-r": Splitting((DIGIT, GPT2)),
    "llama-bpe": Splitting((LLAMA3,), whole_words=True),
    "llama3": Splitting((LLAMA3,), whole_words=True),
    "llama-v3": Splitting((LLAMA3,), whole_words=True),
    "falcon3": Splitting((LLAMA3,), whole_words=True),
    "pixtral": Splitting((LLAMA3,), whole_words=True),
    "smaug-bpe": Splitting((LLAMA3,)),
    "dbrx": Splitting((LLAMA3,)),
    "qwen2": Splitting((QWEN2,)),
    "deepseek-r1-qwen": Splitting((QWEN2,)),
    "megrez": Splitting((QWEN2,)),
    "stablelm2": Splitting((QWEN2,)),
    "tekken": Splitting((TEKKEN,), whole_words=True),
    "gpt-4o": Splitting((GPT4O,)),
}


def splitting_of(name: Any, place: Path) -> Splitting:
    """The splitting that a file names. Raises ModelError for one that is not known."""
    if not isinstance(name, str) or name not in SPLITTINGS:
        said = f"tokenizer.ggml.pre={name}" if name else "no tokenizer.ggml.pre"
        raise ModelError(
            f"{place} has {said}: how its tokenizer splits text is not known here, and another "
            f"way would give other tokens. Known are {', '.join(SPLITTINGS)}."
            f"{did_you_mean(str(name), SPLITTINGS)} The model's own folder brings its rules along: "
            "model=hf model.path=DIR."
        )
    return SPLITTINGS[name]
