"""Two adapters on one base, prompts with references, and how they are evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graftlab.evaluation.metrics.chosen import Metrics
from graftlab.evaluation.metrics.exact_match import ExactMatch
from graftlab.evaluation.metrics.style import Style
from graftlab.evaluation.spec import EvaluateSpec
from graftlab.generation.sampling import Generation
from graftlab.registry import dump
from graftlab.training.precision import Precision
from miniatures import miniature
from trained_runs import trained_run

SYSTEM = "You know music."


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve conversations, of which some are held out."""
    file = tmp_path_factory.mktemp("data") / "chats.jsonl"
    rows = [
        [("user", f"Which record came out in {1950 + n}?"), ("assistant", f"Number {n}, I think.")]
        for n in range(12)
    ]
    named = [[{"role": role, "content": text} for role, text in row] for row in rows]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in named))
    return file


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, data_file: Path) -> list[Path]:
    """Two runs on one base and the same data, `one` and `two`."""
    from graftlab.data.jsonl import JsonlData

    base = miniature("qwen2", tmp_path_factory.mktemp("base"), tie_word_embeddings=False)
    data = dump(JsonlData(train=str(data_file), valid_fraction=0.3, system_prompt=SYSTEM))
    runs = tmp_path_factory.mktemp("runs")
    return [
        trained_run(runs / name, base, data=data, seed=seed)
        for name, seed in (("one", 2), ("two", 3))
    ]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Five prompts with references, in several shapes."""
    file = tmp_path / "prompts.jsonl"
    rows: list[Any] = [
        {"prompt": "What is two and two?", "reference": "4"},
        {"prompt": "And three and three?", "reference": 6},
        {"prompt": [{"role": "user", "content": "Say yes."}], "reference": "Yes."},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        {"instruction": "Name a colour", "input": "", "output": "Red"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def asked(adapters: list[Path], prompts: Path, tmp_path: Path) -> Callable[..., EvaluateSpec]:
    """An evaluation of both adapters, with changes."""

    def spec(**changes: Any) -> EvaluateSpec:
        usual: dict[str, Any] = {
            "adapters": [str(path) for path in adapters],
            "prompts": str(prompts),
            "metrics": Metrics(chosen={"style": Style(), "exact_match": ExactMatch()}),
            "generation": Generation(max_new_tokens=8),
            "precision": Precision(name="fp32"),
            "device": "cpu",
            "cache": str(tmp_path / "cache"),
            "batch": 2,
        }
        return EvaluateSpec(**{**usual, **changes})

    return spec
