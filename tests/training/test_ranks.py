"""Several processes agree with one, also when one of them has no rows left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

import forked
from graftlab.errors import ConfigError, CrashError, GraftlabError, Interrupted
from graftlab.registry import dump
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.history import History
from graftlab.training import __main__ as entry
from graftlab.training import ranks
from graftlab.training.checkpoint import CheckpointStore
from graftlab.training.ranks import FILE, held_alone
from graftlab.training.start import run
from graftlab.training.trainer import LAUNCHED, TrainerSpec


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "adapter-final" / "adapter_model.safetensors")


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_two_gloo_processes_agree_with_one(spec, tmp_path, strategy):
    alone = run(replace(spec, batch_size=2, run_dir=str(tmp_path / "alone")))
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy=strategy)
    both = run(replace(spec, trainer=trainer, run_dir=str(tmp_path / "both")))
    assert alone.steps == both.steps == 6  # five rows: the third step leaves one rank without any
    assert both.tokens == alone.tokens + 2  # its idle position, once an epoch
    assert both.trained_tokens == alone.trained_tokens
    assert both.score == pytest.approx(alone.score, abs=1e-5)
    assert both.baseline == pytest.approx(alone.baseline, abs=1e-5)
    assert alone.interval is not None
    assert both.interval == pytest.approx(alone.interval, abs=1e-5)
    assert both.valid_documents == alone.valid_documents
    ours, theirs = weights(str(tmp_path / "alone")), weights(str(tmp_path / "both"))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=2e-5)
    moved = max(value.abs().max().item() for name, value in ours.items() if "lora_B" in name)
    assert moved > 1e-3


@pytest.mark.slow
def test_the_time_limit_stops_all_processes_after_the_same_step(spec, tmp_path):
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")
    result = run(replace(spec, trainer=trainer, max_steps=10_000, max_minutes=0.02))
    assert "max_minutes" in result.stopped
    assert 1 <= result.steps < 10_000


def test_a_torchrun_of_ones_own_is_refused(spec, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="without torchrun"):
        run(replace(spec, trainer=TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")))


def refused(spec, tmp_path):
    """Runs in two ranks what they refuse to train: only they read the data."""
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")
    broken = replace(spec, trainer=trainer, run_dir=str(tmp_path / "broken"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"messages": []}) + "\n")
    broken.data.train = str(bad)
    with pytest.raises(GraftlabError, match="rows cannot be trained"):
        run(broken)
    assert not list((tmp_path / "broken").glob("ranks*"))


@pytest.mark.slow
def test_what_a_rank_refuses_is_the_error_of_the_run(spec, tmp_path):
    refused(spec, tmp_path)


def test_what_a_rank_says_is_the_error_of_the_run(spec, tmp_path, monkeypatch):
    """The same with the first rank in this process, as torchrun would call it."""

    def torchrun(command, environment):
        assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
        told = {name: environment[name] for name in (LAUNCHED, "OMP_NUM_THREADS")}
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        with monkeypatch.context() as patch:
            patch.setattr(entry, "leave_with_parent", lambda: None)
            for name, value in {**told, **alone}.items():
                patch.setenv(name, value)
            return entry.main(Path(command[command.index("graftlab.training") + 1])), None

    monkeypatch.setattr(ranks, "_run", torchrun)
    refused(spec, tmp_path)


@pytest.mark.parametrize("half", ["", '{"kind": "refu'])
def test_words_that_nobody_could_finish_are_none(spec, tmp_path, monkeypatch, half):
    def torchrun(command, environment):
        (tmp_path / ranks.LAST_WORDS).write_text(half)
        return 1, None

    monkeypatch.setattr(ranks, "_run", torchrun)
    with pytest.raises(CrashError, match="ended with code 1"):
        ranks.launch(spec, RunFolder(tmp_path))
    assert not (tmp_path / ranks.LAST_WORDS).exists()


def test_devices_without_a_strategy_are_refused():
    with pytest.raises(ConfigError, match=r"trainer.devices=2 .*trainer=ddp"):
        TrainerSpec(devices=2)


@pytest.mark.slow
def test_a_killed_rank_is_a_crash_that_names_the_way_on(long_run):
    launcher, folder = long_run
    _rank(folder, 1).kill()
    output, _ = launcher.communicate(timeout=120)
    assert "CrashError" in output
    assert "goes on with resume=auto" in output
    assert not _processes(folder)


def test_ranks_save_and_leave_when_their_launcher_is_killed(long_run):
    launcher, folder = long_run
    assert len(_processes(folder)) == 3  # torchrun and two ranks
    launcher.kill()
    _wait(lambda: not _processes(folder))
    assert CheckpointStore(folder / "checkpoints").last() is not None


@pytest.mark.slow
def test_ranks_leave_when_torchrun_is_killed(long_run):
    launcher, folder = long_run
    next(p for p in _processes(folder) if "torch.distributed.run" in p.cmdline()).kill()
    output, _ = launcher.communicate(timeout=120)
    assert "CrashError" in output
    _wait(lambda: not _processes(folder))


@pytest.mark.slow
def test_a_signal_to_all_processes_at_once_is_one_signal(long_run):
    launcher, folder = long_run
    for process in [*_processes(folder), psutil.Process(launcher.pid)]:
        process.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=120)
    assert "stopped by a signal" in output
    assert not _processes(folder)  # before the launcher went, so that nobody else could come in
    saved = CheckpointStore(folder / "checkpoints").last()
    assert saved.step == History(folder / "train_log.csv").rows[-1]["step"]


@pytest.fixture
def long_run(spec, tmp_path):
    """A process that runs 10,000 steps in two ranks, some of them done; and the run's folder."""
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")
    folder = tmp_path / "long"
    long = replace(spec, trainer=trainer, max_steps=10_000, run_dir=str(folder))
    (tmp_path / "spec.json").write_text(json.dumps(dump(long)))
    program = (
        "import json, sys\nfrom graftlab.registry import restore\n"
        "from graftlab.training import start\n"
        "start.run(restore(start.TrainSpec, json.load(open(sys.argv[1]))))"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "spec.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait(lambda: len(History(folder / "train_log.csv").rows) > 3)
        yield launcher, folder
    finally:
        launcher.kill()
        launcher.communicate()
        for process in _processes(folder):
            process.kill()


def _processes(folder: Path) -> list[psutil.Process]:
    """Torchrun and the ranks of the run in `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(folder / FILE) in process.cmdline() and process.status() != "zombie":
                found.append(process)
    return found


def _rank(folder: Path, number: int) -> psutil.Process:
    return next(p for p in _processes(folder) if p.environ().get("RANK") == str(number))


def _wait(holds) -> None:
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)


def test_a_new_start_waits_for_the_ranks_of_a_killed_one(spec, tmp_path, monkeypatch):
    """They outlive the process that started them while they save, and its locks are free then."""
    started = threading.Event()
    RunFolder(tmp_path).take()

    def start(command, environment):
        started.set()
        return 0, signal.SIGTERM

    monkeypatch.setattr(ranks, "_run", start)
    ends = []

    def launch():
        with pytest.raises(Interrupted):
            ranks.launch(spec, RunFolder(tmp_path))
        ends.append(True)

    again = threading.Thread(target=launch)
    with held_alone(tmp_path):
        again.start()
        assert not started.wait(0.5)
        assert not (tmp_path / FILE).exists()
    assert started.wait(10)
    again.join()
    assert ends == [True]


@pytest.mark.parametrize("number", ["0", "1"])
def test_the_first_rank_holds_the_folder_while_it_trains(spec, tmp_path, monkeypatch, number):
    file = tmp_path / FILE
    file.write_text(json.dumps(dump(spec)), encoding="utf-8")
    monkeypatch.setenv("RANK", number)
    seen = []

    def train(given, observer=None):
        other = threading.Thread(target=lambda: seen.append(enter(tmp_path)))
        other.start()
        other.join(0.5)
        seen.append("trained")

    def enter(folder):
        with held_alone(folder):
            return "entered"

    monkeypatch.setattr(entry, "run", train)
    assert entry.main(file) == 0
    _wait(lambda: len(seen) == 2)
    assert seen == (["trained", "entered"] if number == "0" else ["entered", "trained"])


@pytest.mark.slow
def test_a_process_that_nobody_launched_needs_no_input(spec, tmp_path):
    """As a probe starts it: what there is for input may have ended long ago."""
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(dump(replace(spec, max_steps=1))))
    program = "import runpy; runpy.run_module('graftlab.training', run_name='__main__')"
    done = forked.python(program, str(file), folder=tmp_path)
    assert done.returncode == 0, done.stderr
