"""W&B without a key and TensorBoard: one run per folder, whole after a kill, never a prompt."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from graftlab.errors import ConfigError
from graftlab.tracking.identity import flatten
from graftlab.tracking.loggers import Loggers
from graftlab.tracking.result import Result
from graftlab.tracking.tensorboard import TensorBoardLogs
from graftlab.tracking.wandb import WandbLogs
from wandb_files import history, runs

ROWS = [{"step": 0, "valid_loss": 3.0}, {"step": 1, "loss": 2.5, "epoch": 0.5}]


def open_all(folder, loggers, *, rows=()):
    config = {"lr": 1e-4, "lora": {"rank": 8, "targets": ["q_proj"]}}
    return loggers.open(folder, name="a run", config=config, history=rows)


def test_flat_config_has_dotted_keys():
    assert flatten({"a": {"b": {"c": 1}}, "d": [2], "e": {}}) == {"a.b.c": 1, "d": [2]}


def test_no_loggers_are_none(tmp_path):
    assert open_all(tmp_path, Loggers()) == []


def test_wandb_offline_keeps_one_run_over_two_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for start in range(2):
        (tracker,) = open_all(
            tmp_path, Loggers(chosen={"wandb": WandbLogs(group="g")}), rows=ROWS[:start]
        )
        assert tracker.run.settings.mode == "offline"
        assert tracker.run.config["lora.rank"] == 8
        for row in ROWS[start:]:
            tracker.log(row)
        tracker.samples([{"step": 1, "prompt": "p", "base": "b", "adapter": "a", "expected": "r"}])
        assert "wandb sync" in tracker.where
        tracker.finish(0)
    runs = history(tmp_path)
    assert list(runs) == [(tmp_path / "wandb_id.txt").read_text()]
    (steps,) = runs.values()
    assert steps[0] == {"valid_loss": 3.0}
    assert steps[1] == {"loss": 2.5, "epoch": 0.5}
    assert list(tmp_path.rglob("samples*.table.json"))


def test_tensorboard_holds_every_scalar(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = open_all(tmp_path, Loggers(chosen={"tensorboard": TensorBoardLogs()}))
    for row in ROWS:
        tracker.log(row)
    tracker.finish(0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 2.5)]
    assert [(e.step, e.value) for e in events.Scalars("valid_loss")] == [(0, 3.0)]


def test_a_wrong_mode_is_refused():
    with pytest.raises(ConfigError, match=r"logger.wandb.mode=onlin .*`online`"):
        WandbLogs(mode="onlin")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No key, no mode from outside, and W&B's own folders here."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


def finished(adapter) -> Result:
    return Result(
        score=1.25, baseline=3.0, adapter=str(adapter), steps=4, best_step=3, epochs=2.0, tokens=9,
        trained_tokens=5, tokens_per_second=7.0, packing_density=1.0, peak_rss_mb=100.0,
        trainable_parameters=64, precision="fp32", compiled=False, stopped=None,
    )  # fmt: skip


def test_wandb_knows_what_a_finished_run_achieved(tmp_path, offline):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    logs = WandbLogs(group="g", tags=["mine"], artifacts=True)
    logs.join("a-sweep-" + "x" * 80)
    (tmp_path / "run").mkdir()
    (tracker,) = open_all(tmp_path / "run", Loggers(chosen={"wandb": logs}))
    tracker.log(ROWS[1])
    tracker.conclude(finished(adapter))
    tracker.finish(0)
    ((identifier, run),) = runs(tmp_path / "run").items()
    assert run["summary"].items() >= {
        "best_valid_loss": 1.25, "baseline": 3.0, "best_step": 3, "steps": 4, "pruned": False,
    }.items()  # fmt: skip
    assert (run["group"], run["job_type"]) == ("g", "sweep")  # what was chosen stays
    assert run["tags"] == ["mine", ("a-sweep-" + "x" * 80)[:64]]
    assert run["artifacts"] == [f"adapter-{identifier}"]


def test_wandb_marks_a_pruned_run_until_it_is_let_go_on(tmp_path, offline):
    loggers = Loggers(chosen={"wandb": WandbLogs(tags=["mine"])})
    (tracker,) = open_all(tmp_path, loggers)
    tracker.log(ROWS[1])
    tracker.paused()
    tracker.finish(0)
    (run,) = runs(tmp_path).values()
    assert run["summary"]["pruned"] is True
    assert run["tags"] == ["mine", "pruned"]
    assert (run["job_type"], run["artifacts"]) == ("train", [])
    (tracker,) = open_all(tmp_path, loggers, rows=ROWS)
    tracker.finish(0)
    (run,) = runs(tmp_path).values()
    assert run["summary"]["pruned"] is False
    assert run["tags"] == ["mine"]


def test_a_run_of_wandbs_agent_keeps_the_id_it_was_given(tmp_path, offline):
    program = (
        "import sys; from pathlib import Path; from graftlab.tracking.loggers import Loggers\n"
        "from graftlab.tracking.wandb import WandbLogs\n"
        "loggers = Loggers(chosen={'wandb': WandbLogs(mode='offline')})\n"
        "loggers.open(Path(sys.argv[1]), name='a', config={}, history=[])[0].finish(0)"
    )
    given = {**os.environ, "WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "given123"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=given, check=True)
    assert (tmp_path / "wandb_id.txt").read_text() == "given123"
    assert list(runs(tmp_path)) == ["given123"]


def test_a_tag_that_wandb_would_refuse_is_named():
    with pytest.raises(ConfigError, match="tags of 1 to 64 letters"):
        WandbLogs(tags=["x" * 65])


def test_tensorboard_gathers_the_hyperparameters_of_all_runs(tmp_path):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, list_session_groups
    from tensorboard.plugins.hparams.backend_context import Context

    loggers = Loggers(chosen={"tensorboard": TensorBoardLogs()})
    for rate in (1e-4, 1e-3):
        config = {"lr": rate, "lora": {"rank": 8, "dropout": None}, "run_dir": str(rate)}
        (tracker,) = loggers.open(tmp_path / f"lr{rate}", name="a", config=config, history=[])
        tracker.log(ROWS[1])
        if rate == 1e-3:
            tracker.conclude(finished(tmp_path))
        tracker.finish(0)
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = Context(TBContext(data_provider=provider))
    experiment = context.experiment_from_metadata(
        RequestContext(), "", True, context.hparams_metadata(RequestContext(), ""), []
    )
    differing = {info.name: info.differs for info in experiment.hparam_infos}
    assert differing == {"lr": True, "lora.rank": False, "lora.dropout": False}
    assert "best_valid_loss" in {info.name.tag for info in experiment.metric_infos}
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING],
    )
    handler = list_session_groups.Handler(RequestContext(), context, "", request)
    groups = handler.run().session_groups
    assert {group.hparams["lr"].number_value for group in groups} == {1e-4, 1e-3}
