"""A base with two adapters on it, ready to be served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graftlab.models.cache import acquire
from graftlab.serving.models import find_models, load_models
from miniatures import miniature
from served import LIMIT, SYSTEM, Shop
from trained_runs import trained_run


@pytest.fixture(scope="session")
def served_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on one base: `one`, whose training had a system prompt, and `two`."""
    base = miniature(
        "qwen2",
        tmp_path_factory.mktemp("served"),
        tie_word_embeddings=False,
        max_position_embeddings=LIMIT,
    )
    runs = tmp_path_factory.mktemp("runs")
    one = trained_run(runs / "one", base, data={"system_prompt": SYSTEM})
    return [one, trained_run(runs / "two", base, seed=3)]


@pytest.fixture(scope="module")
def shop(served_folders: list[Path]) -> Iterator[Shop]:
    found = find_models([str(folder) for folder in served_folders], None)
    alone = found["base"]
    with acquire(alone.model, dtype=torch.float32, device=torch.device("cpu")) as base:
        yield Shop(served_folders, base, load_models(base, found, dtype=torch.float32))
