"""`graftlab report`: folders as plain words, files, the best run again, upload."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftlab.cli.compose import VERBS, build, compose
from graftlab.cli.main import main
from graftlab.errors import ConfigError
from graftlab.files.paths import conf_dir
from graftlab.registry import dump
from graftlab.reports.gather import gather
from graftlab.reports.winner import scalar
from graftlab.tracking.folder import read_config
from graftlab.tracking.identity import identity
from graftlab.verbs.report import ReportSpec
from run_folders import grid, result_of, write_run


@pytest.fixture
def report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Knocks with `graftlab report ...` in an empty folder; returns code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def knock(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["report", *words])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return knock


def test_a_sweep_leaves_table_and_page(report: Any, tmp_path: Path) -> None:
    grid(tmp_path / "multirun" / "first", {"lr": [1e-4, 1e-3, 1e-2]}, seeds=3)
    code, out, err = report("multirun/first", "limit=4")
    assert code == 0, err
    assert "9 runs, best first, base alone 4.0000" in out
    assert "... and 5 more" in out
    assert "worse (paired)" in out
    assert "The winner is lr=0.001" in out
    files = {path.name for path in (tmp_path / "multirun" / "first").iterdir() if path.is_file()}
    assert files == {"runs.csv", "runs.parquet", "report.html"}


def test_one_run_alone_is_no_order_of_runs(report: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "alone", {"lr": 0.5})
    code, out, err = report("alone", "out=page")
    assert code == 0, err
    assert out.startswith("1 run, base alone")


def test_several_folders_are_plain_words(report: Any, tmp_path: Path) -> None:
    odd = write_run(tmp_path / "runs" / "a, b=(c) 'd'", {"lr": 0.5})
    write_run(tmp_path / "x" / "y", {"lr": 0.25})
    code, out, err = report("x/y", f"{odd.relative_to(tmp_path)}", "out=elsewhere/deep")
    assert code == 0, err
    assert "2 runs" in out
    assert (tmp_path / "elsewhere" / "deep" / "report.html").is_file()
    assert report("x/y", "runs")[0] == 0
    assert (tmp_path / "outputs" / "report" / "runs.csv").is_file()
    assert report("dirs=[x,runs]", "out=third")[0] == report("dirs=x", "out=fourth")[0] == 0


def test_without_a_folder_the_newest_is_taken(report: Any, tmp_path: Path) -> None:
    code, _, err = report()
    assert code == 2
    assert "There is nothing in multirun/ or outputs/" in err
    write_run(tmp_path / "outputs" / "2026-01-31" / "12-00-00")
    assert "outputs/2026-01-31, the newest" in report()[1]
    for age, name in ((100, "old"), (10, "new")):
        file = write_run(tmp_path / "multirun" / name / "0") / "run.yaml"
        os.utime(file, (file.stat().st_mtime - age,) * 2)
    assert "multirun/new, the newest" in report()[1]


def test_a_refused_training_is_not_the_newest(report: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "outputs" / "2026-01-31" / "12-00-00")
    refused = tmp_path / "outputs" / "2026-02-01" / "12-00-00" / "run.yaml"
    refused.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "outputs" / "2026-01-31" / "12-00-00" / "run.yaml", refused)
    assert "outputs/2026-01-31, the newest" in report()[1]


def test_the_score_is_never_cut(report: Any, tmp_path: Path) -> None:
    """However many keys are swept: other columns are folded."""
    for number in range(2):
        values = {
            "lr": 1e-4 * (number + 1),
            "lora.rank": 8 * (number + 1),
            "lora.targets": ["q_proj", "k_proj", "v_proj", "o_proj"][: number + 2],
            "schedule.warmup_ratio": 0.03 * (number + 1),
            "optimizer.weight_decay": 0.01 * number,
            "packing.max_length": 512 * (number + 1),
            "batch_size": number + 1,
            "seed": number,
        }
        folder = tmp_path / "multirun" / "wide" / f"a-rather-long-name-of-a-job-{number}"
        write_run(folder, values, score=1.2345 + number)
    out = report("multirun/wide")[1]
    assert max(map(len, out.splitlines())) <= 100
    assert "1.2345" in out
    assert "2.2345" in out


def test_wrong_words_are_answered_at_once(report: Any, tmp_path: Path) -> None:
    code, _, err = report("nowhere", "alsonot")
    assert code == 2
    assert "nowhere: there is no such folder" in err
    assert "alsonot: there is no such folder" in err
    assert "add best=true" in report("write=x.yaml")[2]
    assert "limit=0 is out of range" in report("limit=0")[2]
    assert "Did you mean `best`" in report("bset=true")[2]


def test_help_has_no_empty_list_of_choices(report: Any) -> None:
    code, out, _ = report("--help")
    assert code == 0
    assert "Choices" not in out
    assert "Usage: graftlab report [DIR ...] [key=value ...] [flags]" in out
    assert "dirs=[]" in out


@pytest.mark.parametrize("package", ["plotly", "pyarrow"])
def test_a_missing_extra_is_named_and_the_rest_written(
    package: str, report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftlab.reports import export, page

    for module in (export, page):
        find = module.find_spec
        monkeypatch.setattr(module, "find_spec", lambda n, f=find: None if n == package else f(n))
    write_run(tmp_path / "0")
    code, out, err = report("0")
    extra = {"plotly": "report", "pyarrow": "parquet"}[package]
    assert code == 0, err
    assert f"pip install 'graftlab[{extra}]'" in out
    assert (tmp_path / "0" / "runs.csv").is_file()
    assert (tmp_path / "0" / "report.html").exists() == (package != "plotly")


BEST = {
    "lr": 1e-3,
    "lora.rank": 8,
    "lora.targets": ["q_proj", "v_proj"],
    "data.system_prompt": 'You: are #1, "terse" ${x} \\${y}',
    "schedule.warmup_ratio": None,
    "schedule.warmup_steps": 3,
    "max_steps": 24,
    "seed": 1,
}


def write_best(root: Path) -> Path:
    """Six runs; the best has the values of BEST."""
    folders = []
    for n in range(6):
        values = {**BEST, "lr": [1e-3, 2e-3][n % 2], "seed": n // 2}
        score = 1 + n % 2 + [0.01, 0.0, 0.02][n // 2]
        folders.append(write_run(root / str(n), values, score=score))
    return folders[2]


def test_the_best_is_an_experiment_that_gives_the_winner_back(report: Any, tmp_path: Path) -> None:
    winner = write_best(tmp_path / "sweep")
    code, out, err = report("sweep", "best=true", "write=mine/experiment/best.yaml")
    assert code == 0, err
    assert f"--config-dir {tmp_path / 'mine'} experiment=best" in out.replace("\n", "")
    overrides = ["experiment=best", "run_dir=run", f"hydra.searchpath=[file://{tmp_path / 'mine'}]"]
    spec = build(compose("train", overrides)).training()
    assert identity(dump(spec)) == identity(read_config(winner / "run.yaml"))
    assert spec.data.system_prompt == BEST["data.system_prompt"]
    assert (spec.seed, spec.lr) == (1, 1e-3)


def test_only_what_differs_is_written_each_with_its_source(report: Any, tmp_path: Path) -> None:
    write_best(tmp_path / "sweep")
    assert report("sweep", "best=true", "write=best.yaml")[0] == 0
    text = (tmp_path / "best.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert "lr: 0.001 # best of 0.001, 0.002" in lines
    assert "seed: 1 # of the replicate that came out best" in lines
    assert "max_steps: 24 # as in every run" in lines
    assert all(" # " in line or line.endswith(":") for line in lines)
    assert "The winner is lr=0.001" in text
    content = yaml.safe_load(text)
    keys = {"data", "max_steps", "lora", "lr", "schedule", "seed"}
    assert set(content) == keys


def test_another_class_is_chosen_by_its_group(
    report: Any, tmp_path: Path, qwen2_folder: Path
) -> None:
    words = ["model=hf", f"model.path={qwen2_folder}", "callbacks=[default,early-stopping]"]
    words += ["optimizer=custom", "optimizer.target=torch.optim.SGD", "run_dir=run"]
    config = dump(
        build(compose("train", [*words, "++optimizer.arguments.momentum=0.9"])).training()
    )
    folder = write_run(tmp_path / "run")
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    code, _, err = report("run", "best=true", "write=experiment/best.yaml")
    assert code == 0, err
    text = (tmp_path / "experiment" / "best.yaml").read_text(encoding="utf-8")
    assert "  - override /model: hf # as in the run" in text
    assert "  - override /optimizer: custom # as in the run" in text
    overrides = ["experiment=best", "run_dir=run", f"hydra.searchpath=[file://{tmp_path}]"]
    assert identity(dump(build(compose("train", overrides)).training())) == identity(config)


def test_nobody_s_file_is_replaced(report: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    mine = tmp_path / "mine.yaml"
    mine.write_text("lr: 1\n", encoding="utf-8")
    code, _, err = report("run", "best=true", "write=mine.yaml")
    assert code == 2
    assert "was not written by this command" in err
    assert mine.read_text(encoding="utf-8") == "lr: 1\n"
    for _ in range(2):
        assert report("run", "best=true", "write=ours.yaml")[0] == 0


def test_what_cannot_be_said_is_not_written(report: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    config = read_config(folder / "run.yaml")
    config["knob_of_tomorrow"] = 1
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    code, _, err = report("run", "best=true", "write=best.yaml")
    assert code == 2
    assert "knob_of_tomorrow" in err
    assert not (tmp_path / "best.yaml").exists()


def test_the_best_inherits_nothing_that_decides_nothing(report: Any, tmp_path: Path) -> None:
    idle = {"callbacks.progress": False, "callbacks.samples.prompts": 0, "trainer.log_every": 7}
    write_run(tmp_path / "run", {**BEST, **idle, "checkpoint.keep": 5})
    code, out, err = report("run", "best=true")
    assert code == 0, err
    assert "lr: 0.001" in out
    assert "rank: 8" in out
    for key in ("progress", "prompts", "log_every", "keep"):
        assert key not in out
    write_run(tmp_path / "stops", {**idle, "callbacks.repetition.stop": True})
    _, out, _ = report("stops", "best=true")
    assert "prompts: 0" in out
    assert "progress" not in out


def test_a_verdict_over_few_documents_says_so(report: Any, tmp_path: Path) -> None:
    for name, score, documents in (("few", 1.0, 13), ("many", 1.1, 96)):
        folder = write_run(tmp_path / name, {"lr": score / 100}, score=score)
        result_of(score, folder, valid_documents=documents).write(folder / "result.json")
    assert "over 13 documents: too few" in " ".join(report("few", "many")[1].split())
    assert "too few" not in report("many")[1]


def test_without_a_finished_run_nothing_is_best(report: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "run", finished=False)
    code, out, err = report("run", "best=true")
    assert code == 2
    assert "best=true: No run is finished" in err
    assert "runs.csv" in out


@pytest.mark.parametrize(
    "value",
    [
        0.0001,
        1e-05,
        1e20,
        float("inf"),
        3,
        True,
        None,
        "null",
        "1e-3",
        "a b: c # d",
        "",
        "x\ny",
        "${a}",
        "é",
        "no",
    ],
)
def test_scalars_survive_yaml_and_omegaconf(value: Any) -> None:
    from omegaconf import OmegaConf

    content = OmegaConf.create(f"key: {scalar(value)} # source\nlist: {scalar([value])} # source")
    assert OmegaConf.to_container(content, resolve=True) == {"key": value, "list": [value]}
    assert type(content.key) is type(value)


def offline_run(folder: Path) -> Path:
    path = write_run(folder) / "wandb" / "offline-run-20260131_120000-abcd"
    path.mkdir(parents=True)
    return path


def test_upload_needs_a_key_and_something_to_upload(
    report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    write_run(tmp_path / "none")
    assert "left no offline W&B files" in report("none", "sync=true")[2]
    offline_run(tmp_path / "run")
    code, _, err = report("run", "sync=true")
    assert code == 2
    assert "run `wandb login`, or set WANDB_API_KEY" in err


@pytest.mark.parametrize("exit_code", [0, 1])
def test_upload_hands_every_offline_run_to_wandb_sync(
    exit_code: int, report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def note(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, exit_code)

    monkeypatch.setattr("graftlab.tracking.upload.subprocess.run", note)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    folders = [offline_run(tmp_path / "runs" / str(n)) for n in range(2)]
    code, out, err = report("runs", "sync=true")
    assert calls == [[sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]]
    assert code == (2 if exit_code else 0)
    assert ("ended with exit code 1" in err) if exit_code else ("2 offline W&B runs" in out)


def test_wandb_has_the_command_that_is_called() -> None:
    """Its own parser reads the words; `--dry-run` keeps it from sending anything."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", "--dry-run", str(Path(__file__))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "No such option" not in done.stderr


def test_the_spec_is_that_of_its_yaml() -> None:
    assert build(compose("report")) == ReportSpec()
    assert VERBS["report"] is ReportSpec
    assert (conf_dir() / "report.yaml").is_file()
    with pytest.raises(ConfigError, match="no such folder"):
        gather([Path("nowhere")])
