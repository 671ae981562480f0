"""`auto` becomes what plan advises, before a run is compared with any other."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from graftlab.cli.compose import build, compose
from graftlab.errors import ModelError
from graftlab.training.auto import resolve_auto
from graftlab.training.guides import (
    LARGE,
    MEDIUM,
    SMALL,
    STEP,
    usual_epochs,
    usual_rank,
    usual_rate,
)

LARGE_BASE = ["model=qwen2.5-0.5b-instruct", "data=jsonl", "data.profile.documents=100"]


def profile(documents):
    return [f"data.profile.documents={documents}", "lora.rank=auto", "epochs=auto"]


def resolved(*words):
    spec = build(compose("train", [*words, "run_dir=run"])).training()
    return spec, resolve_auto(spec)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 8.0])
def test_a_large_base_takes_a_rate_that_plan_calls_usual(scale):
    spec, said = resolved(*LARGE_BASE, f"lora.scale={scale}")
    assert STEP[0] <= spec.lr * scale <= STEP[1]
    assert said == [
        f"lr={spec.lr:g} (auto: lr x scale is about 4.5e-4 in the guides, and the scale is "
        f"{scale:g})"
    ]


def test_rslora_counts_by_the_root_of_the_rank():
    plain, _ = resolved(*LARGE_BASE, "lora.alpha=32", "lora.rank=16")
    rooted, _ = resolved(*LARGE_BASE, "lora=rslora", "lora.alpha=32", "lora.rank=16")
    assert plain.lr == 2e-4
    assert rooted.lr == pytest.approx(plain.lr / 4, rel=0.25)  # one digit is kept


def test_tiny_bases_and_whole_models():
    tiny, said = resolved("model=tiny", "data=jsonl", "data.train=FILE")
    assert tiny.lr == 1e-3
    assert "3.4 million parameters" in said[0]
    assert resolved(*LARGE_BASE, "lora=none")[0].lr == 2e-5
    assert usual_rate(parameters=10**6, scale=2.0, full=True) == 1e-3
    assert usual_rate(parameters=10**6, scale=2.0, compares=True) == 1e-4
    assert usual_rate(parameters=10**9, scale=2.0, compares=True) == 2e-5


def test_a_base_that_is_refused_gets_no_rate(tmp_path, make_miniature):
    folder = tmp_path / "quantised"
    shutil.copytree(make_miniature("qwen2"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is quantised"):
        resolved("model=hf", f"model.path={folder}", "data=jsonl", "data.train=FILE")


@pytest.mark.parametrize("documents", [20, SMALL, MEDIUM, LARGE])
def test_rank_and_epochs_follow_the_number_of_conversations(documents):
    spec, said = resolved(*LARGE_BASE, *profile(documents))
    assert spec.lora.rank == usual_rank(documents)
    assert spec.epochs == usual_epochs(documents)
    assert f"epochs={spec.epochs} (auto: {documents:,} conversations)" in said
    assert usual_epochs(documents, compares=True) <= min(3, spec.epochs)
    assert resolve_auto(spec) == []  # nothing is left to find


def test_the_conversations_of_a_file_are_counted(tmp_path):
    file = tmp_path / "chats.jsonl"
    row = '[{"role": "user", "content": "Hi %d"}, {"role": "assistant", "content": "Ho"}]'
    file.write_text("\n".join(row % number for number in range(40)))
    words = ["data=jsonl", f"data.train={file}", "data.valid_fraction=0", "epochs=auto"]
    spec, said = resolved(*words)
    assert spec.epochs == 10
    assert said[0] == "epochs=10 (auto: 40 conversations)"


def test_what_was_typed_stays():
    spec, said = resolved(*LARGE_BASE, "lr=3e-4", "lora.rank=8", "epochs=2")
    assert (spec.lr, spec.lora.rank, spec.epochs, said) == (3e-4, 8, 2, [])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lr=fast", "lr must be a number or auto"),
        ("lr=0", "above 0"),
        ("epochs=1.5", "epochs must be a whole number or auto"),
        ("epochs=true", "epochs must be a whole number or auto"),
        ("lora.rank=0", "at least 1"),
        ("lora.rank=[8]", "lora.rank must be a whole number or auto"),
    ],
)
def test_neither_a_number_nor_auto(word, said, capsys):
    from graftlab.cli.main import main

    assert main(["train", word]) == 2
    assert said in capsys.readouterr().err


def test_the_run_keeps_numbers(tmp_path, monkeypatch, capsys):
    from graftlab.cli.main import main

    monkeypatch.chdir(tmp_path)
    words = ["data.limit=12", "max_steps=1", "logger=none", "callbacks.samples.prompts=0"]
    words += ["lr=auto", "lora.rank=auto", "epochs=auto", "hydra.run.dir=run"]
    assert main(["train", *words]) == 0
    kept = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert (kept["lr"], kept["lora"]["rank"], kept["epochs"]) == (1e-3, 16, 10)
    assert "lr=0.001 (auto: a base of 3.4 million parameters)" in capsys.readouterr().out
    assert main(["train", *words, "resume=auto"]) == 0
    assert "Already finished" in capsys.readouterr().out
