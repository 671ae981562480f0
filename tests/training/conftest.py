"""A small run that every test of training starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from graftlab.training.spec import TrainSpec
from miniatures import miniature
from training_spec import small_root, small_spec


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two miniatures (base and teacher) and two data files, shared by a module's tests."""
    root = tmp_path_factory.mktemp("training")
    small_root(root)
    miniature("qwen2", root / "teacher", seed=1)
    return root


@pytest.fixture
def spec(root, tmp_path) -> TrainSpec:
    """Five rows an epoch, fp32, no samples; tests change what they are about."""
    return replace(small_spec(root), run_dir=str(tmp_path / "run"))


@pytest.fixture(autouse=True)
def strangers():
    """No base of this process remembers what it answered an earlier test."""
    from graftlab.models.cache import _resting

    for base, _ in _resting.values():
        base.answers.clear()
