"""W&B online, against a server on loopback: rows arrive, and its faults never stop a run."""

from __future__ import annotations

import gc
import signal
import subprocess
import warnings
from contextlib import suppress

import psutil
import pytest

from graftlab.errors import ConfigError
from graftlab.tracking import wandb as tracking_wandb
from graftlab.tracking import wandb_server as lookups
from graftlab.tracking.loggers import Loggers
from graftlab.tracking.upload import offline_runs
from graftlab.tracking.wandb import WandbLogs
from wandb_files import history
from wandb_server import KEY, wandb_server

ROWS = [{"step": step, "loss": 3.0 - step} for step in range(3)]


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """A key, no mode from outside, and nothing remembered of another test's server."""
    import wandb

    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    lookups.look_up.cache_clear()
    yield
    lookups.look_up.cache_clear()
    monkeypatch.undo()
    with suppress(ConnectionError):  # where the test has killed the service
        wandb.teardown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nobody has waited for a killed service
        gc.collect()


def log_a_run(folder, server_url, monkeypatch, *, midway=lambda: None, timeout=60.0):
    """Log ROWS and finish; returns where the run was said to be."""
    monkeypatch.setenv("WANDB_BASE_URL", server_url)
    folder.mkdir(exist_ok=True)
    logs = Loggers(chosen={"wandb": WandbLogs(finish_timeout=timeout)})
    (tracker,) = logs.open(folder, name="a run", config={"lr": 1e-4}, history=[])
    tracker.log(ROWS[0])
    midway()
    for row in ROWS[1:]:
        tracker.log(row)
    where = tracker.where
    tracker.finish(0)
    return where


def logged_here(folder):
    """The losses in the run folder's own W&B files, by step."""
    return {s: row["loss"] for steps in history(folder).values() for s, row in steps.items()}


def test_rows_arrive_at_the_server(tmp_path, monkeypatch, capsys):
    with wandb_server() as server:
        where = log_a_run(tmp_path / "run", server.url, monkeypatch)
    identifier = (tmp_path / "run" / "wandb_id.txt").read_text()
    assert where == f"W&B: {server.url}/me/graftlab/runs/{identifier}"
    assert {step: row["loss"] for step, row in server.history.items()} == {0: 3.0, 1: 2.0, 2: 1.0}
    assert server.runs[identifier]["displayName"] == "a run"
    assert server.exit_code == 0
    assert "config.yaml" in server.uploads
    assert capsys.readouterr().out == ""
    assert offline_runs([tmp_path / "run"]) == []


@pytest.mark.parametrize("fault", ["refuses the key", "knows no such user", "never answers"])
def test_a_server_of_no_use_is_left_for_an_offline_run(tmp_path, monkeypatch, capsys, fault):
    monkeypatch.setattr(lookups, "LOOK_SECONDS", 0.3)
    with wandb_server(fault) as server:
        where = log_a_run(tmp_path / "run", server.url, monkeypatch)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("! W&B: ")
    assert ("did not answer" if fault == "never answers" else "refuses the key") in line
    assert f"wandb sync {tmp_path / 'run' / 'wandb'}/offline-run-*" in line
    assert "offline" in where
    assert server.history == {}
    assert logged_here(tmp_path / "run") == {0: 3.0, 1: 2.0, 2: 1.0}


def test_no_server_at_all(tmp_path, monkeypatch, capsys):
    with wandb_server() as server:
        url = server.url
    log_a_run(tmp_path / "run", url, monkeypatch)
    assert "cannot be reached" in capsys.readouterr().out
    assert logged_here(tmp_path / "run") == {0: 3.0, 1: 2.0, 2: 1.0}


def test_a_server_that_opens_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking_wandb, "INIT_SECONDS", 1)
    with wandb_server("opens no run") as server:
        log_a_run(tmp_path / "run", server.url, monkeypatch)
    assert "logged offline" in capsys.readouterr().out
    assert logged_here(tmp_path / "run") == {0: 3.0, 1: 2.0, 2: 1.0}


def test_a_network_that_fails_midway_leaves_all_rows_for_sync(tmp_path, monkeypatch, capsys):
    with wandb_server() as server:
        log_a_run(
            tmp_path / "run",
            server.url,
            monkeypatch,
            midway=lambda: setattr(server, "fault", "stops answering"),
            timeout=0.5,
        )
    assert "too slow to take everything" in capsys.readouterr().out
    assert logged_here(tmp_path / "run") == {0: 3.0, 1: 2.0, 2: 1.0}
    (unsent,) = offline_runs([tmp_path / "run"])
    assert unsent.name.startswith("run-")


def test_a_full_quota_ends_no_run(tmp_path, monkeypatch):
    with wandb_server("is full") as server:
        log_a_run(tmp_path / "run", server.url, monkeypatch)
    assert server.history == {}
    assert logged_here(tmp_path / "run") == {0: 3.0, 1: 2.0, 2: 1.0}


def test_a_killed_service_is_followed_by_an_offline_run(tmp_path, monkeypatch, capsys):
    def kill_service():
        services = [p for p in psutil.Process().children(True) if "wandb-core" in p.name()]
        assert services, "guards against vacuity"
        for process in services:
            process.send_signal(signal.SIGKILL)
            for owner in gc.get_objects():  # whoever started it learns of its end, and is quiet
                if type(owner) is subprocess.Popen and owner.pid == process.pid:
                    owner.wait()
            process.wait()

    with wandb_server() as server:
        log_a_run(tmp_path / "run", server.url, monkeypatch, midway=kill_service)
    assert "! W&B: " in capsys.readouterr().out
    assert logged_here(tmp_path / "run") == {0: 3.0, 1: 2.0, 2: 1.0}


def test_wandb_that_fails_even_offline_leaves_the_run_alone(tmp_path, monkeypatch, capsys):
    import wandb

    def broken(**_):
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", broken)
    monkeypatch.delenv("WANDB_API_KEY")
    assert log_a_run(tmp_path / "run", "http://127.0.0.1:9", monkeypatch) == ""
    assert "! W&B: no service; the run goes on without it" in capsys.readouterr().out


@pytest.mark.parametrize("project", ["my proj/1", "a:b", "50%", "", "x" * 129])
def test_a_project_that_wandb_would_refuse_is_named_at_once(project):
    with pytest.raises(ConfigError, match=r"logger\.wandb\.project"):
        WandbLogs(project=project)


def test_online_without_a_key_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(ConfigError, match="there is no key"):
        Loggers(chosen={"wandb": WandbLogs(mode="online")}).check()


def test_a_mode_of_the_environment_is_checked(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ConfigError, match="WANDB_MODE=ofline is not one of"):
        Loggers(chosen={"wandb": WandbLogs()}).check()


def test_the_question_is_asked_once_and_while_other_things_are_done(monkeypatch):
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        Loggers(chosen={"wandb": WandbLogs()}).check()
        first = lookups.look_up(KEY)
        assert first.obstacle() is None
        assert lookups.look_up(KEY) is first
    assert tracking_wandb.wandb_mode("auto") == ("online", None)
