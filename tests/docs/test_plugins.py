"""docs/plugins.md, followed to the letter in a folder outside the repository."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import forked
from afm_adapters import hf_run
from chats import chats
from graftlab.plugins import PLUGINS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^`([^`\n]+)`[^\n]*\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL | re.MULTILINE)
CALLS = (
    "import json, sys; from graftlab.cli.main import main\n"
    "print('CODES', [main(line) for line in json.loads(sys.argv[1])])"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the page says, and is no part of the repository."""
    home = tmp_path_factory.mktemp("home")
    for path, body in BLOCK.findall(PAGE):
        assert path.startswith("mine/")
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(body, encoding="utf-8")
    return home


def called(home: Path, *lines: list[str]) -> tuple[list[int], subprocess.CompletedProcess[str]]:
    """The exit codes of command lines that one new process answers in turn."""
    done = forked.python(CALLS, json.dumps(lines), folder=home)
    codes = [line for line in done.stdout.splitlines() if line.startswith("CODES")]
    assert codes, done.stderr
    return json.loads(codes[-1].removeprefix("CODES ")), done


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "train_log.csv").open() as file:
        return list(csv.DictReader(file))


def training(home: Path, model: Path, *words: str) -> list[str]:
    data = chats(home / "chats.jsonl", 8)
    plain = ["model=hf", f"model.path={model}", "data=jsonl", f"data.train={data}"]
    plain += ["max_steps=2", "logger=csv", "precision=fp32", "callbacks.samples.prompts=0"]
    plain += ["callbacks.progress=false"]
    return ["train", "--config-dir", "mine", *plain, *words]


def test_an_objective(home: Path, qwen2_folder: Path) -> None:
    words = ["plugins=[focal]", "objective=focal", "objective.gamma=1"]
    line = training(home, qwen2_folder, *words, "hydra.run.dir=run")
    bare = [word for word in line if not word.startswith("plugins=")]
    forgotten = [word for word in bare if not word.startswith(("hydra.", "objective.gamma"))]
    codes, done = called(
        home,
        bare,
        [*forgotten, "resume=run"],
        training(home, qwen2_folder, *words, "objective.gama=1"),
        line,
        ["train", "--config-dir", "mine", "plugins=focal", "--help", "objective"],
    )
    assert codes == [2, 2, 2, 0, 0], done.stderr
    assert done.stderr.count("plugins=[MODULE]") == 2
    assert done.stderr.count("objective=focal: there is no class `focal`") == 2
    assert "Did you mean `objective.gamma`?" in done.stderr
    assert "How much less; 0 is plain cross-entropy." in done.stdout
    written = rows(home / "run")
    assert [row["step"] for row in written] == ["0", "1", "2"]
    assert all(0 < float(row["loss"]) < float(row["nll"]) for row in written[1:])
    assert "choice: focal" in (home / "run" / "run.yaml").read_text()


def test_what_it_raises_is_one_message_with_file_and_line(home: Path, qwen2_folder: Path) -> None:
    own = (home / "mine" / "focal.py").read_text()
    broken = own.replace("Focal(", "Broken(").replace('"focal"', '"raises"')
    broken = broken.replace("        weight = ", "        1 / 0  # here\n        weight = ")
    (home / "mine" / "raises.py").write_text(broken)
    option = (home / "mine" / "objective" / "focal.yaml").read_text()
    (home / "mine" / "objective" / "raises.yaml").write_text(option.replace("focal", "raises"))
    line = training(home, qwen2_folder, "plugins=[raises]", "objective=raises")
    swept = ["-m", "objective.gamma=0,2", "hydra.sweep.dir=failed", "sweep.retries=0"]
    codes, done = called(home, [*line, "hydra.run.dir=bad"], [*line, *swept])
    assert codes == [2, 1]
    assert "Traceback" not in done.stdout + done.stderr
    number = next(n for n, text in enumerate(broken.splitlines(), 1) if "# here" in text)
    where = f"{home / 'mine' / 'raises.py'}:{number}: ZeroDivisionError: division by zero"
    assert f"A plug-in failed: {where}\n  The traceback is in " in done.stderr
    assert done.stdout.count(f"failed: A plug-in failed: {where}") >= 2  # each job of the sweep
    traces = [home / "bad", *sorted((home / "failed").glob("*/"))]
    traces = [run / "traceback.txt" for run in traces if (run / "run.yaml").is_file()]
    assert len(traces) == 3
    assert all("1 / 0  # here" in file.read_text() for file in traces)


def test_an_objective_without_a_loss_is_told_so(home: Path, qwen2_folder: Path) -> None:
    own = (home / "mine" / "focal.py").read_text()
    assert '"loss": ' in own
    other = own.replace("Focal(", "Lossless(").replace('"focal"', '"lossless"')
    (home / "mine" / "lossless.py").write_text(other.replace('"loss": ', '"los": '))
    option = (home / "mine" / "objective" / "focal.yaml").read_text()
    (home / "mine" / "objective" / "lossless.yaml").write_text(option.replace("focal", "lossless"))
    words = ["plugins=[lossless]", "objective=lossless", "hydra.run.dir=none"]
    codes, done = called(home, training(home, qwen2_folder, *words))
    assert codes == [2], done.stderr
    assert "objective=lossless: terms() must return a `loss`; it returned los, nll" in done.stderr


@pytest.mark.slow
def test_workers_of_a_sweep_import_it_too(home: Path, qwen2_folder: Path) -> None:
    words = ["-m", "plugins=[focal]", "objective=focal", "objective.gamma=0,2"]
    words += ["hydra.sweep.dir=swept", "launcher=local", "launcher.slots=1"]
    codes, done = called(home, training(home, qwen2_folder, *words))
    assert codes == [0], done.stdout + done.stderr
    losses = [float(rows(run)[-1]["loss"]) for run in sorted((home / "swept").glob("*/"))
              if (run / "train_log.csv").is_file()]  # fmt: skip
    assert len(set(losses)) == 2


def test_what_was_trained_with_it_answers_without(home: Path, qwen2_folder: Path) -> None:
    words = ["plugins=[focal]", "objective=focal", "hydra.run.dir=once"]
    sample = ["sample", "adapter=once", "prompt=Who?", "generation.max_new_tokens=2"]
    train = training(home, qwen2_folder, *words)
    assert called(home, train)[0] == [0]
    codes, done = called(home, sample, [*train, "resume=once", "objective=sft"])
    assert codes[0] == 0, done.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("plugins=[nowhere_at_all]", "No module named 'nowhere_at_all'. A module of your own lies"),
        ("plugins=a/b.py", "give the names of modules, as Python imports them"),
        ("plugins=[]", "give the names of modules"),
        ("plugins=[broken]", "broken.py:1: ZeroDivisionError"),
        ("plugins=[needy]", "plugins=needy: No module named 'not_installed'."),
        ("plugin=[focal]", "Did you mean `plugins`?"),
        ("experiment=asks", "`plugins`: code is allowed on each command line"),
        ("objective=nonesuch", "plugins=[MODULE]"),
        ("plugins=[again]", "objective=sft is graftlab.objectives.sft"),
    ],
)
def test_what_is_refused(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftlab.cli.main import main

    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import not_installed\n")
    (tmp_path / "again.py").write_text(
        "from dataclasses import dataclass\n"
        "from graftlab.objectives.sft import SFT\n"
        "from graftlab.registry import choice\n"
        "@choice('sft')\n@dataclass(kw_only=True, slots=True)\nclass Mine(SFT): ...\n"
    )
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "asks.yaml").write_text("# @package _global_\nplugins: [focal]\n")
    found = list(sys.path)
    try:
        assert main(["train", "--config-dir", str(tmp_path), word]) == 2
        assert PLUGINS not in os.environ  # no worker is to import what was refused
    finally:
        sys.path[:] = found
        for name in ("broken", "needy", "again"):
            sys.modules.pop(name, None)
    assert message in capsys.readouterr().err


def test_an_export_target(home: Path, tmp_path: Path) -> None:
    run = hf_run(tmp_path)
    line = ["export", "--config-dir", "mine", f"adapter={run}", "out=made", "target=npz"]
    codes, done = called(
        home,
        line,
        [*line, "plugins=npz", "target.compres=true"],
        [*line, "plugins=npz", "target.compress=true"],
    )
    assert codes == [2, 2, 0], done.stderr
    assert "target=npz: there is no class `npz`" in done.stderr
    assert "Did you mean `target.compress`?" in done.stderr
    assert "matrices read back equal" in done.stdout
    with np.load(home / "made" / "adapter.npz") as found:
        assert {name.rpartition("lora_")[2] for name in found} == {"A.weight", "B.weight"}


def test_a_logger(home: Path, qwen2_folder: Path) -> None:
    words = ["plugins=[jsonl]", "logger=[tensorboard,jsonl]", "hydra.run.dir=logged"]
    line = training(home, qwen2_folder, *words)
    line.remove("logger=csv")
    codes, done = called(
        home,
        [word for word in line if not word.startswith("plugins")],
        [*line, "logger.jsonl.fil=a"],
        [*line, "logger.jsonl.file=rows.jsonl"],
        ["train", "--config-dir", "mine", "plugins=jsonl", "--help", "logger"],
    )
    assert codes == [2, 2, 0, 0], done.stderr
    assert "Did you mean `logger.jsonl.file`?" in done.stderr
    assert "Name of the file in the run folder." in done.stdout
    text = (home / "logged" / "rows.jsonl").read_text()
    written = [json.loads(line) for line in text.splitlines()]
    assert [row.get("step") for row in written] == [0, 1, 2, None]
    assert written[-1]["steps"] == 2
    assert float(rows(home / "logged")[-1]["loss"]) == pytest.approx(written[2]["loss"])
    assert list((home / "logged" / "tensorboard").iterdir())


def test_a_callback_and_one_of_lightnings(home: Path, qwen2_folder: Path) -> None:
    names = ["plugins=[loss_floor,deadline]"]
    floor = ["callbacks=[default,loss-floor]", "callbacks.loss_floor.floor=99"]
    late = ["callbacks=[default,deadline]", "callbacks.deadline.hours=1e-9"]
    line = training(home, qwen2_folder, *names, "max_steps=9")
    codes, done = called(
        home,
        [*line, *floor, "callbacks.loss_floor.patienc=2"],
        [*line, "callbacks.loss_floor.patience=2"],
        [*line, *floor, "callbacks.loss_floor.patience=2", "hydra.run.dir=floored"],
        [*line, *late, "hydra.run.dir=timed"],
        ["train", "--config-dir", "mine", *names, "--help", "callbacks"],
    )
    assert codes == [2, 2, 0, 0, 0], done.stderr
    assert "Did you mean `callbacks.loss_floor.patience`?" in done.stderr
    assert "Turn it on with callbacks=[default,loss-floor]." in done.stderr
    assert "Steps below the floor before stopping." in " ".join(done.stdout.split())
    floored, timed = (json.loads((home / run / "result.json").read_text())
                      for run in ("floored", "timed"))  # fmt: skip
    assert (floored["steps"], floored["stopped"]) == (2, "loss floor: below 99 for 2 steps")
    assert (timed["steps"], timed["stopped"]) == (1, "stopped by a callback of Lightning's")


def test_a_callback_remembers_over_a_pause_and_among_others(home: Path, qwen2_folder: Path) -> None:
    """Stopped by time after a step, the run ends where one left alone does; so do joint ones."""
    words = ["plugins=[loss_floor]", "callbacks=[default,loss-floor]", "max_steps=9"]
    words += ["callbacks.loss_floor.floor=99", "callbacks.loss_floor.patience=3"]
    line = training(home, qwen2_folder, *words)
    short = [*line, "hydra.run.dir=cut", "max_minutes=1e-6"]
    again = [*line, "resume=cut"]
    both = [*line, "-m", "callbacks.loss_floor.patience=2,4", "launcher=joint",
            "hydra.sweep.dir=together"]  # fmt: skip
    codes, done = called(home, short, again, both)
    assert codes == [0, 0, 0], done.stdout + done.stderr
    result = json.loads((home / "cut" / "result.json").read_text())
    assert (result["steps"], result["stopped"]) == (3, "loss floor: below 99 for 3 steps")
    ends = [json.loads(file.read_text()) for file in (home / "together").glob("*/result.json")]
    assert sorted(end["steps"] for end in ends) == [2, 4]
    assert all(end["stopped"].startswith("loss floor") for end in ends)
