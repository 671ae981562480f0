"""A teacher that is a bare checkpoint of a toolkit: its base is said, or asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.apple.checkpoints import write
from graftlab.apple.model import AFMModel
from graftlab.errors import ModelError
from graftlab.objectives.distill import Distill
from graftlab.training.teacher import asked, find


def test_a_bare_checkpoint_teaches_with_the_base_it_is_given(make_afm, afm_folder, tmp_path: Path):
    file = tmp_path / "theirs" / "adapter-final.pt"
    lora = Lora(rank=32, alpha=16, targets="all-linear")
    write(attach(make_afm(), lora, seed=0, dtype=torch.float32).state_dict(), file)
    with pytest.raises(ModelError, match=r"objective\.base=FOLDER"):
        find(str(file))
    with pytest.raises(ModelError, match=r"objective\.base=nowhere is no model folder"):
        find(str(file), base="nowhere")
    teacher = asked(Distill(teacher=str(file), base=str(afm_folder)))
    assert teacher is not None
    assert isinstance(teacher.model, AFMModel)
    assert teacher.model.folder() == afm_folder
    assert teacher.adapter is not None
    assert teacher.adapter.path == file
    assert teacher.fingerprint() == find(str(file), base=str(afm_folder)).fingerprint()
