"""W&B without a key and TensorBoard: one run per folder, whole after a kill, never a prompt."""

from __future__ import annotations

import pytest

from graftlab.errors import ConfigError
from graftlab.tracking.loggers import Loggers, TensorBoardLogs, WandbLogs, flat
from wandb_files import history

ROWS = [{"step": 0, "valid_loss": 3.0}, {"step": 1, "loss": 2.5, "epoch": 0.5}]


def open_all(folder, loggers, *, rows=()):
    config = {"lr": 1e-4, "lora": {"rank": 8, "targets": ["q_proj"]}}
    return loggers.open(folder, name="a run", config=config, history=rows)


def test_flat_config_has_dotted_keys():
    assert flat({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


def test_no_loggers_are_none(tmp_path):
    assert open_all(tmp_path, Loggers()) == []


def test_wandb_offline_keeps_one_run_over_two_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for start in range(2):
        (tracker,) = open_all(tmp_path, Loggers(wandb=WandbLogs(group="g")), rows=ROWS[:start])
        assert tracker.run.settings.mode == "offline"
        assert tracker.run.config["lora.rank"] == 8
        for row in ROWS[start:]:
            tracker.log(row)
        tracker.samples([{"step": 1, "prompt": "p", "base": "b", "adapter": "a", "reference": "r"}])
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

    (tracker,) = open_all(tmp_path, Loggers(tensorboard=TensorBoardLogs()))
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
