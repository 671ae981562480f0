"""Every way to train works on a base of codes, and an adapter knows on which one it was trained."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from graftlab.adapters.artifact import TrainedModel, find_artifact
from graftlab.adapters.attach import load_trained
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, ModelError, Paused
from graftlab.models.base import Base
from graftlab.models.cache import acquire, forget
from graftlab.models.quantization.base import Quantization
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from graftlab.objectives.dpo import DPO
from graftlab.objectives.kl_sft import KLSFT
from graftlab.training.checkpoint import Checkpointing
from graftlab.training.joint.groups import group
from graftlab.training.observer import Observer
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from joint_runs import assert_equal_runs, same_bits, together
from packed_folders import packed_folder
from pairs import preference_data

CPU = torch.device("cpu")
FLAVOURS = {
    "lora": Lora(rank=4, dropout=0.1),
    "dora": Lora(rank=4, dora=True),
    "rslora": Lora(rank=4, rslora=True, init="orthogonal"),
    "eva": Lora(rank=4, init="eva"),
    "rows": Lora(rank=4, trainable_tokens=["<|im_end|>"]),
}


def slow(name: str) -> Any:
    """One more of a kind."""
    return pytest.param(name, marks=pytest.mark.slow)


def stored(spec: TrainSpec, quantization: Quantization, **changes: object) -> TrainSpec:
    model = replace(spec.model, quantization=quantization)
    return replace(spec, model=model, **changes)


def losses(spec: TrainSpec) -> list[float]:
    with (Path(spec.run_dir) / "train_log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def weights(spec: TrainSpec) -> dict[str, torch.Tensor]:
    return load_file(Path(spec.run_dir) / "adapter-final" / "adapter_model.safetensors")


@pytest.fixture
def widened(spec: TrainSpec, tmp_path: Path) -> TrainSpec:
    """The same run on a folder that holds the values of the nf4 base."""
    model = replace(spec.model, quantization=NF4())
    base = model.load(dtype=torch.float32, device=CPU)
    plain = spec.model.load(dtype=torch.float32, device=CPU)
    with torch.no_grad():
        for name, parameter in plain.model.named_parameters():
            parameter.copy_(base.model.get_parameter(name))
    plain.model.save_pretrained(tmp_path / "widened")
    plain_folder = Path(spec.model.path)
    for file in plain_folder.glob("*token*"):
        (tmp_path / "widened" / file.name).write_bytes(file.read_bytes())
    for file in plain_folder.glob("*.jinja"):
        (tmp_path / "widened" / file.name).write_bytes(file.read_bytes())
    widened_model = replace(spec.model, path=str(tmp_path / "widened"))
    return replace(spec, model=widened_model, run_dir=str(tmp_path / "wide"))


@pytest.mark.parametrize("flavour", ["lora", "dora", "rows", slow("rslora"), slow("eva")])
def test_it_trains_as_on_the_values_that_codes_stand_for(
    flavour: str, spec: TrainSpec, widened: TrainSpec
) -> None:
    lora = FLAVOURS[flavour]
    coded = stored(spec, NF4(), lora=lora)
    run(coded)
    run(replace(widened, lora=lora))
    assert losses(coded)[-1] < losses(coded)[0]
    assert losses(coded) == pytest.approx(losses(widened), rel=1e-6)
    found, wanted = weights(coded), weights(widened)
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name])


def test_checkpointed_layers_compute_the_same(spec: TrainSpec, tmp_path: Path) -> None:
    kept = stored(spec, NF4(), lora=FLAVOURS["lora"])
    again = replace(kept, run_dir=str(tmp_path / "again"))
    again = replace(again, model=replace(again.model, gradient_checkpointing=True))
    run(kept)
    run(again)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(kept).values(), weights(again).values(), strict=True)
    )


class Pause(Observer):
    """Stops a run behind its third step."""

    rungs = (3,)

    def verdict(self, step: int) -> str | None:
        return "a pause"


@pytest.mark.parametrize("objective", ["sft", slow("kl-sft")])
def test_a_run_goes_on_to_the_bit(objective: str, spec: TrainSpec, tmp_path: Path) -> None:
    chosen = KLSFT(kl_lambda=1.0) if objective == "kl-sft" else spec.objective
    whole = stored(spec, Int8(), objective=chosen, checkpoint=Checkpointing(every_steps=1))
    cut = replace(whole, run_dir=str(tmp_path / "cut"))
    run(whole)
    with pytest.raises(Paused):
        run(cut, observer=Pause())
    run(replace(cut, resume="auto"))
    assert losses(cut) == losses(whole)
    assert len(losses(whole)) > 3
    assert same_bits(Path(whole.run_dir), Path(cut.run_dir))


def test_codes_from_the_disk_train_to_the_same_bits(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    names = ("without", "made", "read")
    for name in names:
        forget()
        choice = NF4(double=True, cache=name != "without")
        run(stored(spec, choice, run_dir=str(tmp_path / name), max_steps=4))
    assert len(list((tmp_path / "cache").glob("codes-*"))) == 1
    for name in names[1:]:
        assert same_bits(tmp_path / "without", tmp_path / name)


@pytest.mark.parametrize("kind", ["nf4", slow("int8")])
def test_a_folder_that_comes_quantised_trains_as_one_quantised_here(
    kind: str, spec: TrainSpec, tmp_path: Path
) -> None:
    choice = {"nf4": NF4(), "int8": Int8()}[kind]
    folder, _ = packed_folder(Path(spec.model.path), tmp_path / "packed", kind)
    here = stored(spec, choice, lora=Lora(rank=4), max_steps=4)
    packed_model = replace(spec.model, path=str(folder))
    there = replace(here, model=packed_model, run_dir=str(tmp_path / "there"))
    run(here)
    run(there)
    assert losses(there) == losses(here)
    assert same_bits(Path(here.run_dir), Path(there.run_dir))
    card = (Path(there.run_dir) / "adapter" / "card.md").read_text()
    assert any("base stored in" in line and kind in line for line in card.splitlines())

    for trained, model in ((here, packed_model), (there, here.model)):  # each on the other's base
        found = find_artifact(trained.run_dir).on_base(model, advice="")
        base = model.load(dtype=torch.float32, device=CPU)
        assert load_trained(base, found, dtype=torch.float32) is not None
    plain = spec.model.load(dtype=torch.float32, device=CPU)
    found = find_artifact(there.run_dir).on_base(spec.model, advice="")
    with pytest.raises(ModelError, match="another base"):
        load_trained(plain, found, dtype=torch.float32)


def test_a_folder_of_codes_is_not_trained_in_full_nor_sharded(
    spec: TrainSpec, tmp_path: Path
) -> None:
    folder, _ = packed_folder(Path(spec.model.path), tmp_path / "packed", "nf4")
    model = replace(spec.model, path=str(folder))
    with pytest.raises(ConfigError, match="packed comes in nf4: .* lora=none trains every weight"):
        replace(spec, model=model, lora=Lora(full=True))
    with pytest.raises(ConfigError, match="trainer=fsdp2 shards weights, and packed comes in nf4"):
        replace(spec, model=model, trainer=replace(spec.trainer, strategy="fsdp2"))


def test_preferences_ask_the_codes_too(spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftlab.training.setup.read_data", preference_data)
    asked = stored(spec, NF4(), objective=DPO(), max_steps=4)
    result = run(asked)
    assert losses(asked)[0] == pytest.approx(0.693, abs=1e-3), "the base is its own reference"
    assert result.score < result.baseline


def test_runs_on_one_base_train_together(spec: TrainSpec, tmp_path: Path) -> None:
    specs = [stored(spec, Int8(), lora=Lora(rank=rank)) for rank in (4, 6)]
    alone = [replace(one, run_dir=str(tmp_path / f"alone{i}")) for i, one in enumerate(specs)]
    for one in alone:
        run(one)
    together(specs, tmp_path)
    for number, one in enumerate(alone):
        assert_equal_runs(tmp_path / str(number), Path(one.run_dir))


def test_other_storages_do_not_train_together(spec: TrainSpec) -> None:
    assert group([stored(spec, Int8()), stored(spec, NF4()), spec, spec]) == [[0], [1], [2, 3]]


def test_a_base_comes_to_rest_and_is_lent_again(spec: TrainSpec) -> None:
    model = replace(spec.model, quantization=NF4())
    lent: list[Base] = []
    for _ in range(2):
        with acquire(model, dtype=torch.float32, device=CPU) as base:
            lent.append(base)
    with acquire(spec.model, dtype=torch.float32, device=CPU) as base:
        lent.append(base)
    assert lent[0] is lent[1]
    assert lent[0] is not lent[2]


def test_the_adapter_tells_how_its_base_was_stored(spec: TrainSpec) -> None:
    run(stored(spec, NF4(double=True), max_steps=1))
    folder = Path(spec.run_dir) / "adapter"
    told = yaml.safe_load((folder / "run.yaml").read_text())["model"]["quantization"]
    assert (told["choice"], told["double"]) == ("nf4", True)
    assert "nf4, double" in (folder / "card.md").read_text()


def test_an_adapter_stays_on_its_own_storage(spec: TrainSpec, tmp_path: Path) -> None:
    trained = stored(spec, NF4(), max_steps=2, lora=Lora(rank=4))
    run(trained)
    onto = stored(spec, Int8(), run_dir=str(tmp_path / "onto"), max_steps=1)
    continued = Lora(rank=4, from_run=spec.run_dir)
    with pytest.raises(ConfigError, match=r"quantization=nf4.*0\.31 nats.*lora\.force=true"):
        run(replace(onto, lora=continued))
    run(replace(onto, lora=replace(continued, force=True)))
    same = stored(onto, NF4(), run_dir=str(tmp_path / "same"), lora=continued)
    run(same)

    found = find_artifact(spec.run_dir).on_base(spec.model, advice="")
    plain = spec.model.load(dtype=torch.float32, device=CPU)
    with pytest.raises(ModelError, match=r"stored by quantization=nf4, and here .* otherwise"):
        load_trained(plain, found, dtype=torch.float32)
    with pytest.raises(ModelError, match=r"or force=true"):
        load_trained(plain, found, dtype=torch.float32, force=False)
    assert load_trained(plain, found, dtype=torch.float32, force=True) is not None


def test_another_base_is_never_forced(spec: TrainSpec, root: Path) -> None:
    run(stored(spec, NF4(), max_steps=1))
    adapter = find_artifact(spec.run_dir).adapter
    other = replace(spec.model, path=str(root / "teacher"))
    base = other.load(dtype=torch.float32, device=CPU)
    with pytest.raises(ModelError, match="another base"):
        load_trained(base, TrainedModel("x", other, adapter), dtype=torch.float32, force=True)
