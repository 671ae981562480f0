"""What every test shares: a quiet, offline process with its own caches, and model folders."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from graftlab.models.base import Base

# Read by the libraries when they are imported, so set before any test module is.
SCRATCH = Path(tempfile.mkdtemp(prefix="graftlab-tests-"))
os.environ.update(
    {
        "GRAFTLAB_CACHE": str(SCRATCH / "graftlab"),
        "HF_HOME": str(SCRATCH / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TORCHINDUCTOR_CACHE_DIR": str(SCRATCH / "inductor"),
    }
)
os.environ.pop("WANDB_API_KEY", None)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # miniatures are too small to share between cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and processes that share cores must not spin
os.fsync = lambda descriptor: None  # no test cuts the power, and a run syncs fifty files
gc.disable()  # until the tests are collected, which takes a third longer with it


def pytest_runtestloop() -> None:
    gc.enable()


_imported = 0
"""How many modules there were when objects were last frozen."""


def pytest_runtest_setup() -> None:
    """Whatever heavy libraries are in, no collection walks through their objects again.

    Every training collects garbage before it loads a base: a quarter of a second each, without.
    """
    global _imported
    if "lightning" in sys.modules and len(sys.modules) > _imported + 50:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        _imported = len(sys.modules)


def pytest_sessionfinish() -> None:
    import shutil

    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture(scope="session")
def make_miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`make_miniature("qwen2")` is the folder of that architecture, written once per test run.

    Read-only by agreement: a test that changes a folder copies it first.
    """
    from miniatures import miniature

    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = miniature(kind, tmp_path_factory.mktemp("miniatures") / kind)
        return folders[kind]

    return folder


@pytest.fixture(scope="session")
def qwen2_folder(make_miniature: Callable[[str], Path]) -> Path:
    """The miniature most tests use."""
    return make_miniature("qwen2")


@pytest.fixture(scope="session")
def make_base(make_miniature: Callable[[str], Path]) -> Callable[..., Base]:
    """`make_base("llama")` loads that miniature anew: fp32 on the CPU unless told otherwise."""
    import torch

    from graftlab.models.hf import HFModel

    def base(kind: str = "qwen2", dtype: torch.dtype = torch.float32) -> Base:
        spec = HFModel(path=str(make_miniature(kind)))
        return spec.load(dtype=dtype, device=torch.device("cpu"))

    return base


@pytest.fixture(scope="session")
def afm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of Apple's on-device model, in the layout of the toolkit's assets."""
    from afm_assets import make_assets

    return make_assets(tmp_path_factory.mktemp("afm") / "assets")


@pytest.fixture(scope="session")
def make_afm(afm_folder: Path) -> Callable[..., Base]:
    """`make_afm()` loads that miniature anew: fp32 on the CPU unless told otherwise."""
    import torch

    from graftlab.apple.model import AFMModel

    def base(dtype: torch.dtype = torch.float32) -> Base:
        spec = AFMModel(path=str(afm_folder), template="chatml")
        return spec.load(dtype=dtype, device=torch.device("cpu"))

    return base
