"""One function says what a path is: a run, an adapter, a checkpoint, a whole model, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from graftlab.adapters.artifact import Artifact, find_artifact
from graftlab.adapters.attach import attach, check_lora, load_adapter, register_adapters
from graftlab.adapters.draft import DraftModel
from graftlab.adapters.lora import Lora
from graftlab.adapters.store import (
    CheckpointSource,
    FolderSource,
    ModelSource,
    checkpoint_kinds,
    register_checkpoint,
)
from graftlab.errors import ConfigError, ModelError
from graftlab.models import folder as folders
from graftlab.models.hf import HFModel
from graftlab.models.hf_base import HFBase
from graftlab.models.tiny import TinyModel


@pytest.fixture
def run(make_base: Callable, tmp_path: Path) -> Path:
    """A run folder with an adapter, but for its run.yaml; its config names the base's folder."""
    adapter = attach(make_base("llama"), Lora(rank=2), seed=0, dtype=torch.float32)
    adapter.save(tmp_path / "run" / "adapter")
    return tmp_path / "run"


def kinds(artifact: Artifact) -> tuple[type | None, type | None]:
    return type(artifact.adapter), type(artifact.whole)


def test_a_run_its_folder_and_its_files_are_one_adapter(run: Path) -> None:
    home = run / "adapter"
    for path in (run, home, home / "adapter_config.json", home / "adapter_model.safetensors"):
        found = find_artifact(str(path))
        assert kinds(found) == (FolderSource, type(None)), path
        assert found.place == home
        assert found.path == str(path)


def test_a_run_of_all_weights_is_a_whole_model_and_trained_of_its_base(
    make_base: Callable, make_miniature: Callable, tmp_path: Path
) -> None:
    base = make_base("llama")
    attach(base, Lora(full=True), seed=0, dtype=torch.float32).save(tmp_path / "run" / "adapter")
    found = find_artifact(str(tmp_path / "run"))
    assert kinds(found) == (ModelSource, HFModel)
    assert found.standing_alone(advice="").adapter is None
    given = HFModel(path=str(make_miniature("llama")))
    trained = found.on_base(given, advice="")
    assert trained.model is given
    assert trained.adapter is not None
    assert trained.adapter.base_fingerprint() == base.fingerprint
    assert trained.fingerprint() != found.standing_alone(advice="").fingerprint()


def test_a_model_is_no_adapter_and_a_checkpoint_is_told_by_its_ending(
    make_miniature: Callable, tmp_path: Path
) -> None:
    model = find_artifact(str(make_miniature("llama")))
    assert kinds(model) == (type(None), HFModel)
    with pytest.raises(ModelError, match="whole model that names no base"):
        model.require_adapter()
    (tmp_path / "last.ckpt").touch()
    assert kinds(find_artifact(str(tmp_path / "last.ckpt"))) == (CheckpointSource, type(None))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ModelError, match=r"neither a folder nor a checkpoint \(\.ckpt, \.pt\)"):
        find_artifact(str(tmp_path / "notes.txt"))


def test_a_draft_is_made_after_the_folder_that_an_adapter_names(
    run: Path, make_miniature: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose template is not known, so nothing is sampled on it."""
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    plain = DraftModel(of=str(make_miniature("llama"))).folder()
    assert DraftModel(of=str(run)).folder() == plain
    file = run / "adapter" / "adapter_config.json"
    for named in (str(make_miniature("llama")), "someone/some-model", "", None):
        content = json.loads(file.read_text()) | {"base_model_name_or_path": named}
        file.write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=r"no run\.yaml that says which base.*: say it\.$"):
            find_artifact(str(run)).on_base(advice="say it")
    with pytest.raises(ModelError, match=r"model\.of=.*no run\.yaml.*model\.of=MODEL_FOLDER"):
        DraftModel(of=str(run)).check()


def test_what_others_register_is_found(
    monkeypatch: pytest.MonkeyPatch, make_miniature: Callable, tmp_path: Path
) -> None:
    monkeypatch.setattr(folders, "_KINDS", {})
    monkeypatch.setattr("graftlab.adapters.store._CHECKPOINTS", checkpoint_kinds())
    folders.register_model_folder("weights.own", lambda place: TinyModel())
    register_checkpoint(".own", CheckpointSource)
    own = shutil.copytree(make_miniature("llama"), tmp_path / "own")  # has a config.json, too
    (own / "weights.own").touch()
    assert isinstance(find_artifact(str(own)).whole, TinyModel)
    assert kinds(find_artifact(str(own / "weights.own")))[0] is CheckpointSource


def test_a_base_takes_the_adapters_registered_for_its_class(
    run: Path, make_miniature: Callable
) -> None:
    class OwnModel(HFModel):
        pass

    class OwnBase(HFBase):
        pass

    asked = []
    register_adapters(
        OwnModel,
        OwnBase,
        check=lambda model, lora: asked.append("check"),
        attach=lambda base, lora, **_: asked.append("attach"),
        load=lambda base, source, **_: asked.append("load"),
    )
    base = HFModel(path=str(make_miniature("llama"))).load(
        dtype=torch.float32, device=torch.device("cpu")
    )
    base.__class__ = OwnBase
    check_lora(OwnModel(path=str(make_miniature("llama"))), Lora(layers=99))
    attach(base, Lora(), seed=0, dtype=torch.float32)
    load_adapter(base, FolderSource(run / "adapter"))
    assert asked == ["check", "attach", "load"]
