"""The verb: a plan from files, from a config, from nothing but an experiment; sweeps; budgets."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chats import chats
from graftlab.cli.compose import build, compose
from graftlab.cli.main import main
from graftlab.cli.schema import read_schema
from graftlab.errors import ConfigError
from graftlab.files.paths import conf_dir
from graftlab.planning.budget import refuse_over_budget
from graftlab.planning.show import totals
from graftlab.verbs.plan import PlanSpec, run
from kept_logging import kept_logging

Door = Callable[..., tuple[int, str, str]]


@pytest.fixture
def door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Door]:
    """Runs a command in an empty folder; what it prints is wide enough not to wrap."""
    from graftlab import console

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    chats(tmp_path / "chats.jsonl", 30)

    def knock(*words: str) -> tuple[int, str, str]:
        console.console.cache_clear()
        capsys.readouterr()
        code = main(words)
        seen = capsys.readouterr()
        console.console.cache_clear()
        return code, seen.out, seen.err

    with kept_logging():
        yield knock


def planned(*words: str) -> Any:
    return run(build(compose("plan", [*words, "run_dir=."])))


def test_its_configuration_is_that_of_train() -> None:
    train, plan = (read_schema(verb, [conf_dir()]) for verb in ("train", "plan"))
    assert plan.groups == train.groups
    assert plan.defaults == train.defaults
    assert list(plan.defaults.items())[:2] == [("model", "tiny"), ("quantization", "none")]
    assert plan.values == train.values | {"run_dir": ".", "probe": False}
    assert train.values["epochs"] == 3


def test_an_experiment_is_planned_without_model_or_data(door: Door) -> None:
    code, out, err = door("plan", "experiment=ficino", "machine=h100")
    assert code == 0, err
    for words in ("3.11B", "66,633,728", "assumed", "on H100", "h200", "USD"):
        assert words in out
    for name in ("base", "activations", "logits", "overhead", "rtx-4090", "m2-16gb"):
        assert name in out


def test_a_folder_with_data(door: Door, qwen2_folder: Path, tmp_path: Path) -> None:
    words = [f"model.path={qwen2_folder}", "data=jsonl", "data.train=chats.jsonl"]
    before = sorted(tmp_path.rglob("*"))
    code, out, err = door("plan", "model=hf", *words, "machine=rtx-4090", "precision=fp32")
    assert code == 0, err
    assert "counted with the model's tokenizer" in out
    assert "fits" in out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_config_without_weights_is_enough(door: Door, qwen2_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(qwen2_folder, folder)
    (folder / "model.safetensors").unlink()
    words = ["model=hf", f"model.path={folder}", "data=jsonl", "data.train=chats.jsonl"]
    code, out, err = door("plan", *words, "machine=h100")
    assert code == 0, err
    assert "without weights" in out
    assert door("train", *words, "logger=none")[0] == 2


def test_a_hub_model_that_is_not_here_is_counted_as_published(door: Door) -> None:
    words = ["experiment=hafs-coder", "data.train=chats.jsonl", "machine=rtx-4070-ti-super"]
    code, out, err = door("plan", *words)
    assert code == 0, err
    assert "14.77B parameters (published architecture)" in out
    assert "estimated from letters" in out
    assert "does NOT fit" in out
    assert "quantization=nf4" in out
    assert re.search(r"As it is, it fits on (h100|a100-80gb|h200) \(\d", out)
    assert "Nothing is packed" in out


def test_a_hub_model_of_which_nothing_is_known(door: Door) -> None:
    words = ["model=hf", "model.hub=someone/some-model", "data=jsonl", "data.train=chats.jsonl"]
    code, _, err = door("plan", *words, "machine=h100")
    assert code == 2
    assert "someone/some-model" in err
    assert "model.architecture.hidden_size" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["machine=h1000"], "Did you mean `h100`?"),
        (["machine.pric=3"], "Did you mean `machine.price`?"),
        (["machine.watts=-1"], "machine.watts=-1"),
        (["budget.max_hour=3"], "Did you mean `budget.max_hours`?"),
        (["budget.max_cost=0"], "budget.max_cost=0"),
        (["prob=true"], "Did you mean `probe`?"),
        (["data.profile.documents=0"], "data.profile.documents=0"),
        (["data=jsonl"], "data.train is not set"),
        (["model=hf", "model.path=nowhere"], "there is no such folder"),
        (["model=hf", "model.architecture.layers=3"], "model.architecture is incomplete"),
        (["lora.targets=[q_prj]", "machine=h100"], "Did you mean `q_proj`?"),
    ],
)
def test_bad_values_are_named_with_their_fix(words, message, door: Door) -> None:
    code, _, err = door("plan", *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_training_still_wants_data_and_model(door: Door) -> None:
    code, _, err = door("train", "experiment=ficino", "logger=none")
    assert code == 2
    assert "data.train is not set" in err or "model.path" in err


def test_a_sweep_is_summed(door: Door) -> None:
    code, out, err = door("plan", "-m", "machine=h100", "lora.rank=4,16", "epochs=1,2")
    assert code == 0, err
    assert "the sweep: 4 runs" in out
    assert "together" in out


def test_totals_are_sums_and_the_base_of_a_sweep_s_limit(capsys) -> None:
    plans = [planned("machine=h100", f"epochs={n}") for n in (1, 2, 3)]
    hours, kwh, cost = totals(plans)
    assert hours == pytest.approx(sum(plan.bill.hours for plan in plans))
    assert hours == pytest.approx(2 * plans[2].bill.hours, rel=0.2)
    assert (kwh, cost) == pytest.approx((hours * 0.7, hours * 2.5))


def test_a_budget_stops_a_launch_before_anything_is_loaded(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import graftlab.training.run as training

    def never(*_: Any) -> None:
        raise AssertionError("training was started")

    monkeypatch.setattr(training, "execute", never)
    small = ["logger=none", "trainer=cpu", "precision=fp32"]
    code, _, err = door("train", *small, "budget.max_hours=1e-6")
    assert code == 2
    assert "budget.max_hours=1e-06 would be passed" in err
    assert "graftlab plan" in err
    code, _, err = door("train", *small, "machine=h100", "budget.max_cost=1e-9")
    assert code == 2
    assert "budget.max_cost" in err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_sweep_beyond_its_budget_starts_no_job(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import graftlab.sweeps.run as sweep
    from graftlab.sweeps.engine import SweepOutcome

    orders: list[Any] = []
    monkeypatch.setattr(
        sweep, "run", lambda order: orders.append(order) or SweepOutcome(order.folder, [], 0.0)
    )
    words = ["-m", "lora.rank=4,8,16", "logger=none", "trainer=cpu", "machine=h100"]
    plan = planned("machine=h100", "lora.rank=16")
    assert plan.bill is not None
    code, _, err = door("train", *words, f"budget.max_hours={plan.bill.hours * 1.5}")
    assert code == 2
    assert "for the 3 jobs of the sweep together" in err
    assert "Within it: the first" in err
    assert not orders
    assert not list(tmp_path.glob("multirun"))
    code, _, err = door("train", *words, f"budget.max_hours={plan.bill.hours * 4}")
    assert code == 0, err
    assert orders[0].jobs == 3


def test_a_space_is_summed(door: Door) -> None:
    code, out, err = door("plan", "-m", "sweep=lr-rank", "machine=h100", "lora.rank=4,8")
    assert code == 0, err
    assert "Launching 8 jobs" in out
    code, _, err = door("plan", "-m", "sweep=lr-rank-epochs", "machine=h100")
    assert code == 2
    assert "an interval" in err


def test_within_its_budget_a_run_starts(monkeypatch: pytest.MonkeyPatch, door: Door) -> None:
    import graftlab.training.run as training

    started = []
    monkeypatch.setattr(training, "execute", lambda spec, *_: started.append(spec))
    small = ["logger=none", "trainer=cpu", "precision=fp32"]
    assert door("train", *small, "budget.max_hours=1000")[0] == 0
    assert len(started) == 1


def test_steps_already_taken_are_paid(capsys) -> None:
    spec = build(compose("plan", ["machine=h100", "run_dir=."]))
    whole = run(spec)
    spec.budget.max_hours = whole.bill.hours / 2
    with pytest.raises(ConfigError, match="would be passed"):
        refuse_over_budget(spec)
    refuse_over_budget(spec, done_steps=whole.load.steps - 1)


def test_a_budget_does_not_change_what_a_run_is() -> None:
    from graftlab.registry import dump
    from graftlab.tracking.identity import identity

    plain = build(compose("train", ["run_dir=run"])).training()
    other = build(
        compose("train", ["run_dir=run", "budget.max_hours=3", "machine=h200"])
    ).training()
    assert identity(dump(plain)) == identity(dump(other))


@pytest.mark.slow
def test_a_probe_measures_real_steps(qwen2_folder: Path, tmp_path: Path, capsys) -> None:
    data = chats(tmp_path / "chats.jsonl", 60)
    words = ["model=hf", f"model.path={qwen2_folder}", "data=jsonl", f"data.train={data}"]
    plan = planned(*words, "precision=fp32", "packing.max_length=256", "probe=true", "epochs=9")
    assert plan.probe is not None
    assert plan.probe.tokens_per_second > 0
    assert plan.bill.tokens_per_second == plan.probe.tokens_per_second


def test_a_probe_needs_something_to_train_with() -> None:
    with pytest.raises(ConfigError, match=r"data\.train"):
        planned("experiment=ficino", "probe=true")


def test_importing_the_task_is_light() -> None:
    import subprocess
    import sys

    heavy = ["torch", "numpy", "transformers", "rich", "hydra"]
    code = f"import sys, graftlab.verbs.plan; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert PlanSpec.__doc__


def test_rows_too_short_for_every_document_are_no_way_out(door: Door) -> None:
    """A profile of one length: half of the row holds none, and the other changes are still told."""
    profile = ["data.profile.documents=100", "data.profile.mean=1024", "packing.max_length=1024"]
    code, out, err = door("plan", "experiment=hafs-coder", *profile, "machine=rtx-4070-ti-super")
    assert code == 0, err
    assert "does NOT fit" in out
    assert "quantization=nf4" in out
    assert "packing.max_length=512" not in out
