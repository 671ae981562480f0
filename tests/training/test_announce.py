"""What is said before a run starts, of documents that the base was not made for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graftlab.tracking.folder import RunFolder
from graftlab.training.announce import warn_of_length
from graftlab.training.setup import resolve_setup
from graftlab.training.spec import TrainSpec


def test_documents_beyond_the_positions_of_the_base_are_told(
    spec: TrainSpec, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Path(shutil.copytree(root / "base", tmp_path / "short"))
    config = json.loads((short / "config.json").read_text())
    model = replace(spec.model, path=str(short))
    setup = resolve_setup(replace(spec, model=model), RunFolder(tmp_path / "run"))
    lengths = setup.data.train.lengths
    for positions in (int(lengths.max()), int(lengths.max()) - 1):
        changed = {**config, "max_position_embeddings": positions}
        (short / "config.json").write_text(json.dumps(changed))
        base = model.load(dtype=torch.float32, device=torch.device("cpu"))
        capsys.readouterr()
        warn_of_length(setup, base)
        told, beyond = capsys.readouterr().out, int((lengths > positions).sum())
        assert told.startswith(f"! {beyond} of {len(lengths)} documents are longer") == bool(beyond)
