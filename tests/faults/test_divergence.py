"""Numbers that are none: refused at the door, named in weights, and never saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.lora import Lora
from graftlab.cli.compose import build, compose
from graftlab.errors import ConfigError, ModelError, NonFiniteError, require_range
from graftlab.models.finite import describe_nonfinite
from graftlab.models.hf import HFModel
from graftlab.packing.plan import Packing
from graftlab.registry import dump, restore
from graftlab.training.checkpoint import CheckpointStore
from graftlab.training.module import AdapterModule
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from left_behind import left_behind
from miniatures import miniature

NO_NUMBERS = (float("inf"), float("-inf"), float("nan"))


def numbers(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where numbers stand in a dumped spec."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from numbers(value, (*path, key))
    elif isinstance(data, float | int) and not isinstance(data, bool):
        yield path


def test_no_key_takes_what_is_no_number() -> None:
    whole = dump(build(compose("train", ["logger=none", "run_dir=run"])).training())
    places = list(numbers(whole))
    assert ("lr",) in places
    assert ("optimizer", "eps") in places
    assert len(places) >= 30
    for *parents, key in places:
        for value in NO_NUMBERS:
            node = data = deepcopy(whole)
            for parent in parents:
                node = node[parent]
            node[key] = value
            with pytest.raises(ConfigError, match=key):
                restore(TrainSpec, data)


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e400", ".inf"])
def test_the_door_refuses_them(text: str) -> None:
    with pytest.raises(Exception, match=r"lr"):
        build(compose("train", [f"lr={text}", "run_dir=run"])).training()


@pytest.mark.parametrize("bounds", [{}, {"least": 0}, {"above": 0}])
def test_a_number_in_its_bounds_is_finite_too(bounds: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="k=inf is out of range: it must be a finite number"):
        require_range("k", float("inf"), **bounds)


def test_a_bad_update_is_not_saved_and_the_run_goes_on_from_before(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(replace(spec, run_dir=str(tmp_path / "whole")))
    clip = AdapterModule.configure_gradient_clipping

    def overflows(self: AdapterModule, *given: Any, **named: Any) -> None:
        clip(self, *given, **named)
        if self.global_step == 2:  # behind the check of the gradients: in the update itself
            self.adapter.named_parameters()[3][1].grad.fill_(float("inf"))

    with monkeypatch.context() as patch:
        patch.setattr(AdapterModule, "configure_gradient_clipping", overflows)
        with pytest.raises(NonFiniteError, match=r"Step 3: the update left") as stop:
            run(spec)
    store = CheckpointStore(Path(spec.run_dir) / "checkpoints")
    assert [saved.step for saved in store.saved()] == [1, 2]
    for saved in store.saved():
        assert describe_nonfinite(saved.load()["adapter"].items()) is None
    assert "The checkpoint of step 2 was checked and is good" in str(stop.value)
    run(replace(spec, resume="auto"))
    assert left_behind(Path(spec.run_dir)) == left_behind(tmp_path / "whole")


def test_good_is_said_of_no_checkpoint_that_was_not_looked_at(spec: TrainSpec) -> None:
    run(spec)
    store = CheckpointStore(Path(spec.run_dir) / "checkpoints")
    first, second, third, fourth = store.saved()
    assert "step 4" in store.good()
    content = torch.load(fourth.path, weights_only=True)
    next(iter(content["adapter"].values())).view(-1)[0] = float("nan")
    torch.save(content, fourth.path)
    assert "step 3" in store.good()
    third.path.write_bytes(third.path.read_bytes()[:1000])
    assert f"step 2 was checked and is good: {second.path}" in store.good()
    for saved in (first, second):
        saved.path.unlink()
    assert store.good() == "There is no good checkpoint from before it."


@pytest.fixture
def damaged(root: Path, tmp_path: Path) -> Callable[[str, float], Path]:
    """A base in which one value of one weight is set."""

    def made(name: str, value: float) -> Path:
        folder = miniature("qwen2", tmp_path / "damaged")
        file = folder / "model.safetensors"
        tensors = load_file(file)
        tensors[name].view(-1)[5] = value
        save_file(tensors, file, {"format": "pt"})
        return folder

    return made


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_base_is_named_by_its_weight(
    spec: TrainSpec, damaged: Callable[[str, float], Path], value: float
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    spec.model = HFModel(path=str(damaged(name, value)))
    kind = "NaN" if value != value else "infinite"
    with pytest.raises(ModelError, match=rf"up_proj.*1 of [\d,]+ values is {kind}.*\[0, 5\]"):
        run(spec)


def test_so_it_is_where_no_row_is_packed(
    spec: TrainSpec, damaged: Callable[[str, float], Path]
) -> None:
    """The probe compares with the model's own pass there."""
    spec.model = HFModel(path=str(damaged("model.norm.weight", float("nan"))))
    spec.packing = Packing(strategy="none", max_length=80)
    with pytest.raises(ModelError, match=r"the weights are damaged.*norm\.weight"):
        run(spec)


def test_a_damaged_adapter_is_named_by_its_weight(spec: TrainSpec, tmp_path: Path) -> None:
    spec.max_steps = 1
    run(spec)
    ours, stranger = Path(spec.run_dir) / "adapter", tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "adapter_config.json").write_bytes((ours / "adapter_config.json").read_bytes())
    tensors = load_file(ours / "adapter_model.safetensors")
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = float("inf")
    save_file(tensors, stranger / "adapter_model.safetensors")
    assert find_artifact(str(stranger)).require_adapter().base_fingerprint() is None
    spec.lora, spec.run_dir = Lora(from_run=str(stranger)), str(tmp_path / "next")
    with pytest.raises(ModelError, match=r"stranger.*lora_A.*infinite"):
        run(spec)
