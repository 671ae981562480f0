"""What is wrong is told in one message with the key and the fix; exit code 2, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from graftlab.errors import Interrupted, ModelError

if TYPE_CHECKING:
    from conftest import Doors

REPOSITORY = Path(__file__).parents[2]

TYPOS = {
    "precison=bf16-mixed": "Did you mean `precision`?",
    "precision=bf17": "precision=bf17 is not one of auto, bf16",
    "lora=bf16-mixed": "Did you mean `precision=bf16-mixed`?",
    "epocs=3": "Did you mean `epochs`?",
    "rank=8": "Did you mean `lora.rank`?",
    "objective.zeal=0.1": "is not a key of graftlab train. objective has: ",
    "schedule.warmup_rate=0.1": "Did you mean `schedule.warmup_ratio`?",
    "lorra.rank=8": "Did you mean `lora.rank`?",
    "lora.rnak=8": "Did you mean `lora.rank`?",
    "+lora.rnak=8": "Did you mean `lora.rank`?",
    "++lora.rnak=8": "Did you mean `lora.rank`?",
    "+optimizer.weight_deca=3": "Did you mean `optimizer.weight_decay`?",
    "++callbacks.validation.every_step=3": "Did you mean `callbacks.validation.every_steps`?",
    "++zzz=1": "`zzz` is not a key",
    "~lr": "a key cannot be taken away",
    "~logger": "write logger=OPTION",
    "+lr=3": "write it without the +",
    "+logger=csv": "write logger=OPTION",
    "lora@data=attn": "is not a key",
    "nonsense/lora=attn": "is not a key",
    "epochs.more=3": "epochs holds a value",
    "bf16-mixed": "Did you mean `precision=bf16-mixed`?",
    "precision": "Did you mean `precision=...`?",
    "lr=1e-3,1e-4": "add -m",
    "lr=(1": "cannot be read",
    "model=null": "model takes one of",
    "run_dir=here": "hydra.run.dir=DIR",
    "hydra.run.dri=here": "not a key of Hydra's",
    "--epochs": "key=value",
}

WRONG = {
    "epochs=abc": "epochs must be a whole number or auto.",
    "epochs=1.5": "epochs must be a whole number or auto.",
    "lr=true": "lr must be a number or auto.",
    "lora.dora=perhaps": "lora.dora must be true or false.",
    "max_steps=soon": "max_steps must be a whole number or null.",
    "logger.wandb.tags=one": "logger.wandb.tags must be a list such as [a,b].",
    "callbacks.validation=5": "set by its keys (every_epochs, every_steps)",
    "lora.rank=-8": "lora.rank=-8 is out of range",
    "schedule.shape=cosin": "Did you mean `cosine`?",
    "optimizer.target=torch.optim.SGD": "it belongs to optimizer=custom",
    "optimizer.arguments.betas=[0.9,0.99]": "it belongs to optimizer=custom",
    "data.train=[[x.jsonl]]": "data.train takes a plain list such as [a,b]",
    "data.valid=[x.jsonl,[y.jsonl]]": "data.valid takes a plain list such as [a,b]",
    "lora.targets=[[q_proj],k_proj]": "lora.targets takes a plain list such as [a,b]",
    "lora.targets=[{q_proj: 1}]": "lora.targets takes a plain list such as [a,b]",
    "lora.trainable_tokens=[[a,b]]": "lora.trainable_tokens takes a plain list such as [a,b]",
    "checkpoint.keep=[[1]]": "checkpoint.keep takes a plain list such as [a,b]",
    "callbacks=[[default]]": "callbacks takes one of",
    "callbacks.plateau.patience=3": "Turn it on with callbacks=[default,plateau].",
    "logger.wandb.projekt=x": "Did you mean `logger.wandb.project`?",
    "data.train=nowhere.jsonl": "nowhere.jsonl",
    "model.path=nowhere": "there is no such folder",
    "model=some/base.gguf": "Name it so: model=gguf model.path=FILE.gguf.",
    "model=./base": "Name it so: model=hf model.path=DIR.",
    "lora.targets=[q_prj]": "lora.targets",
    "hydra/launcher=nonsense": "Could not find 'hydra/launcher/nonsense'",
}


@pytest.mark.parametrize(("word", "message"), [*TYPOS.items(), *WRONG.items()])
def test_one_message_and_exit_code_2(word: str, message: str, doors: Doors) -> None:
    seen = doors.train(word)
    assert seen.code == 2
    assert message in seen.err
    assert seen.err.startswith("graftlab train:")
    assert "Traceback" not in seen.err + seen.out
    assert "To append to your config" not in seen.err
    assert doors.specs == []


@pytest.mark.parametrize(
    ("verb", "word"),
    [
        *(
            ("evaluate", "adapters=[[a,b]]"),
            ("evaluate", "votes=[a,[b]]"),
            ("report", "dirs=[[a]]"),
        ),
        *(("serve", "adapters=[[a]]"), ("prepare", "corpus=[[a]]"), ("plan", "data.train=[[a]]")),
        *(("evaluate", "decides=[[style]]"), ("prepare", "sources.mine.files=[[a]]")),
        *(("inspect", "data.train=[[a]]"), ("evaluate", "metrics.persona.corpus=[[a]]")),
    ],
)
def test_no_list_inside_a_plain_one(verb: str, word: str, doors: Doors) -> None:
    seen = doors.knock(verb, word)
    key = word.partition("=")[0]
    said = f"graftlab {verb}: `{word}`: {key} takes a plain list such as [a,b]"
    assert (seen.code, seen.err.startswith(said)) == (2, True), seen.err


def test_all_typos_at_once(doors: Doors) -> None:
    seen = doors.train("epocs=3", "lora.rnak=8", "precision=bf17")
    assert seen.code == 2
    assert all(key in seen.err for key in ("`epocs`", "`lora.rnak`", "precision=bf17"))
    assert len(seen.err.splitlines()) == 4


def test_free_dictionaries_take_any_key(doors: Doors) -> None:
    custom = ["optimizer=custom", "optimizer.target=torch.optim.SGD"]
    assert doors.train(*custom, "optimizer.arguments.momentum=0.9").code == 0
    assert doors.train(*custom, "optimizer.arguments={momentum: 0.9}").code == 0
    assert [spec.optimizer.arguments for spec in doors.specs] == [{"momentum": 0.9}] * 2


def test_optimizers_of_torch_only_and_their_own_arguments(doors: Doors) -> None:
    for words, message in [
        (["optimizer.target=os.system"], "only classes under torch.optim"),
        (["optimizer.target=torch.optim.SDG"], "Did you mean `SGD`?"),
        (["optimizer.arguments.momentm=0.9"], "Did you mean `momentum`?"),
    ]:
        seen = doors.train("optimizer=custom", *words)
        assert seen.code == 2
        assert message in seen.err


@pytest.mark.parametrize("argument", ["trian", "lr=3", "--verbose"])
def test_an_unknown_verb(argument: str, doors: Doors) -> None:
    seen = doors.knock(argument)
    assert seen.code == 2
    assert "train" in seen.err


def test_a_sweep_is_checked_value_by_value_before_it_starts(doors: Doors) -> None:
    for word in ("lora.rank=4,-8", "precision=fp32,bf17", "lr=1e-3,x", "data.limit=4,0"):
        seen = doors.train("-m", word)
        assert seen.code == 2
        assert word.split("=")[0] in seen.err
    assert doors.specs == []
    assert not (doors.folder / "multirun").exists()


def test_errors_of_the_run_itself(doors: Doors) -> None:
    doors.fail = {"seed=1": ModelError("The base is of another shape.")}
    seen = doors.train("seed=1")
    assert (seen.code, seen.err) == (2, "graftlab train: The base is of another shape.\n")
    doors.fail = {"seed=1": ZeroDivisionError("ours")}
    seen = doors.train("seed=1")
    assert seen.code == 1
    assert "Traceback" in seen.err
    assert "ZeroDivisionError: ours" in seen.err
    doors.fail = {"seed=1": KeyboardInterrupt()}
    assert doors.train("seed=1").code == 130
    doors.fail = {"seed=1": Interrupted("SIGTERM: stopped and saved.", 143)}
    seen = doors.train("seed=1")
    assert (seen.code, seen.err) == (143, "SIGTERM: stopped and saved.\n")


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["train.py", "precison=bf16"], 2, "python train.py: `precison`"),
        (["-m", "graftlab.cli.main", "train", "+lora.rnak=8"], 2, "Did you mean `lora.rank`?"),
        (["-m", "graftlab.cli.main", "train", "epochs=abc"], 2, "epochs must be a whole number"),
        (["-m", "graftlab.cli.main", "train", "--help"], 0, "Choices"),
    ],
)
def test_processes_answer_without_anything_heavy(command: list[str], code: int, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        timeout=60,
    )
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "graftlab.cli" in imported or command[0] == "-m"
    assert not imported & {"torch", "numpy", "lightning", "transformers", "wandb", "optuna"}


def test_flags_may_stand_in_front_of_the_verb(doors: Doors) -> None:
    for flags in (["--config-dir", "."], ["--config-dir=."], ["-cd", "."]):
        assert doors.knock(*flags, "train", "lr=0").err.startswith("graftlab")
        assert "lr=0.0 is out of range" in doors.knock(*flags, "train", "lr=0").err
    assert doors.knock("--cfg", "job", "train").code == 0
    assert "is not a verb" in doors.knock("--config-dir", ".").err


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "graftlab", "--version"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("graftlab ")
    assert done.returncode == 0
