"""A run on Apple's on-device model means what it says, and leaves the toolkit's files behind."""

from __future__ import annotations

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from chats import chats
from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.lora import Lora
from graftlab.apple.model import AFMModel
from graftlab.errors import ConfigError
from graftlab.objectives.policy import Policy
from graftlab.packing.loader import PackedLoader
from graftlab.packing.plan import Packing, plan_rows
from graftlab.registry import dump
from graftlab.text.encode import encode
from graftlab.training.checkpoint import Checkpointing
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.precision import Precision
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from graftlab.types import IGNORE
from left_behind import left_behind
from nursing import nursery
from tolerance import assert_same
from training_spec import small_spec

SGD = CustomOptimizer(target="torch.optim.SGD", clip_norm=None)
LORA = Lora(rank=4, alpha=2, targets="all-linear")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("afm-training")
    chats(root / "train.jsonl", 11)
    chats(root / "valid.jsonl", 4)
    return root


@pytest.fixture
def spec(root, afm_folder, tmp_path) -> TrainSpec:
    model = AFMModel(path=str(afm_folder), template="chatml")
    run_dir = str(tmp_path / "run")
    return replace(small_spec(root), model=model, lora=LORA, run_dir=run_dir)


def final(spec: TrainSpec) -> dict[str, torch.Tensor]:
    return load_file(Path(spec.run_dir) / "adapter-final" / "adapter_model.safetensors")


def losses(spec: TrainSpec) -> list[float]:
    with (Path(spec.run_dir) / "train_log.csv").open() as file:
        return [float(row["loss"]) for row in list(csv.DictReader(file))[1:]]


def distance(ours: dict, theirs: dict) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def moved(state: dict[str, torch.Tensor]) -> float:
    return max(v.abs().max().item() for k, v in state.items() if "b_transpose" in k)


def test_accumulation_changes_nothing(spec, tmp_path):
    spec = replace(spec, optimizer=SGD, lr=0.1)
    found = []
    for batch_size, accumulate in [(1, 6), (6, 1), (2, 3)]:
        run_dir = str(tmp_path / f"{batch_size}x{accumulate}")
        one = replace(spec, batch_size=batch_size, accumulate=accumulate, run_dir=run_dir)
        run(one)
        found.append(final(one))
    assert distance(found[0], found[1]) < 1e-6
    assert distance(found[0], found[2]) < 1e-6
    assert moved(found[0]) > 1e-4


def test_packing_changes_nothing_but_the_rows(spec, tmp_path):
    spec = replace(spec, optimizer=SGD, lr=0.1, accumulate=11)
    found = []
    for strategy in ("best-fit", "none"):
        packing = Packing(strategy=strategy, max_length=80)
        one = replace(spec, packing=packing, run_dir=str(tmp_path / strategy))
        assert run(one).steps == 2
        found.append(final(one))
    assert distance(*found) < 1e-6
    assert moved(found[0]) > 1e-4


def test_gradient_checkpointing_changes_nothing(spec, tmp_path):
    found = []
    for on in (False, True):
        one = replace(
            spec,
            model=replace(spec.model, gradient_checkpointing=on),
            lora=replace(LORA, dropout=0.3),
            max_steps=3,
            run_dir=str(tmp_path / str(on)),
        )
        run(one)
        found.append(final(one))
    assert distance(*found) == 0.0


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16"])
def test_every_precision_follows_fp32(spec, tmp_path, precision):
    found = []
    for name in ("fp32", precision):
        one = replace(
            spec, precision=Precision(name=name), lr=5e-3, run_dir=str(tmp_path / name), max_steps=8
        )
        run(one)
        found.append(losses(one))
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert found[0][-1] < found[0][0] - 0.05


def test_only_the_assistant_is_trained(spec):
    """The loss is that of the labels alone, though logits are made nowhere else."""
    base = spec.model.load(dtype=torch.float32, device=torch.device("cpu"))
    read = spec.data.load(reserved=frozenset(), rejects=None)
    tokens = encode(read.train, spec.model.load_tokenizer(), max_length=80)
    rows = plan_rows(tokens.lengths.tolist(), spec.packing)
    batch = next(iter(PackedLoader(tokens, rows, batch_size=1, seed=None)))
    labels = batch.labels[0]
    assert 0 < (labels != IGNORE).sum() < len(labels)
    with torch.no_grad():
        nll = Policy(base, None).nll(batch)
        logits = base.logits(base.hidden(batch)[0])
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert_same(nll, expected[labels != IGNORE])


def test_a_wish_to_compile_is_answered(spec, capsys):
    result = run(replace(spec, compile="on", max_steps=1))
    assert not result.compiled
    assert "not on Apple's model" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(spec, tmp_path):
    data = dump(
        replace(
            spec,
            accumulate=2,
            callbacks=Callbacks(validation=Validation(every_steps=2), samples=Samples(prompts=0)),
            checkpoint=Checkpointing(every_steps=1),
            precision=Precision(name="auto"),
            lora=replace(LORA, dropout=0.2),
        )
    )
    (whole,) = nursery(data, [{"run_dir": str(tmp_path / "whole")}], tmp_path)
    assert whole["code"] == 0
    reference = left_behind(tmp_path / "whole")
    events = len(whole["events"])
    places = [events // 2, events - 1]
    commands = []
    for place in places:
        run_dir = str(tmp_path / f"killed-{place}")
        commands += [{"run_dir": run_dir, "kill_at": place}, {"run_dir": run_dir, "resume": "auto"}]
    answers = nursery(data, commands, tmp_path)
    for place, killed, resumed in zip(places, answers[::2], answers[1::2], strict=True):
        assert killed["code"] == -signal.SIGKILL
        assert resumed["code"] == 0, place
        assert left_behind(tmp_path / f"killed-{place}") == reference, place
        ours, theirs = (
            {
                file.name: torch.load(file, weights_only=True)
                for file in (tmp_path / name / "checkpoints").glob("*.pt")
            }
            for name in (f"killed-{place}", "whole")
        )
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert all(torch.equal(ours[name][k], theirs[name][k]) for k in theirs[name])


def test_the_toolkits_files_are_left_behind(spec):
    run(replace(spec, epochs=4, lr=5e-3))
    folder = Path(spec.run_dir)
    with (folder / "train_log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("valid_loss") and row["step"] != "0"]
    assert len(rows) == 4
    ranked = sorted(range(4), key=lambda index: float(rows[index]["valid_loss"]))
    names = {f"adapter-epoch{epoch + 1}.pt" for epoch in ranked[:2]} | {"adapter-final.pt"}
    assert {file.name for file in (folder / "checkpoints").glob("*.pt")} == names
    state = torch.load(folder / "checkpoints" / "adapter-final.pt", weights_only=True)
    assert state.keys() == final(spec).keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in final(spec).items())
    content = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert content["format"] == "tamm"

    source = find_artifact(str(folder / "checkpoints" / "adapter-final.pt")).require_adapter()
    assert source.run()["model"]["path"] == spec.model.path
    assert source.base_fingerprint() == spec.model.fingerprint()
    assert source.config()["alpha"] == 2


def test_it_starts_from_a_toolkit_checkpoint(spec, tmp_path):
    run(replace(spec, max_steps=2))
    file = Path(spec.run_dir) / "checkpoints" / "adapter-final.pt"
    further = replace(
        spec,
        lora=replace(LORA, from_run=str(file)),
        lr=1e-12,
        max_steps=1,
        run_dir=str(tmp_path / "on"),
    )
    run(further)
    assert distance(final(further), final(spec)) < 1e-9


def test_a_target_that_is_not_there_is_refused_before_anything_loads(spec):
    with pytest.raises(ConfigError, match="no linear layer"):
        run(replace(spec, lora=Lora(targets=["c_attn"])))
