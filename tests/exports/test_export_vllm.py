"""`target=vllm`: one rank and one scale give the same logits, and serve.sh says what is meant."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from afm_adapters import hf_run, logits
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.source import load
from graftlab.exports.vllm import VLLM, served
from peft_exports import IDS
from tolerance import assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
]
OF_VLLM = {"r", "lora_alpha", "use_rslora", "target_modules", "bias", "peft_type"}
"""What vLLM reads of adapter_config.json; the rest it leaves unread."""


def exported(run: Path, folder: Path, **keys: Any) -> Path:
    folder.mkdir()
    target, adapter = VLLM(**keys), load(str(run))
    target.check(adapter)
    target.write(adapter, folder)
    target.verify(adapter, folder)
    return folder


def called_with(folder: Path, *words: str, place: Path) -> list[str]:
    """The words that serve.sh calls vllm with, started from elsewhere."""
    fake = place / "bin" / "vllm"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\n')
    fake.chmod(0o755)
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(folder / "serve.sh"), *words],
        env={**os.environ, "PATH": path}, cwd=place, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split("\0")[:-1]


PATTERNS = {
    "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
    "alpha_pattern": {"v_proj": 9.0},
}


@pytest.mark.parametrize(
    "lora", [{}, {"rslora": True}, PATTERNS, {**PATTERNS, "rslora": True}], ids=str
)
def test_one_rank_and_one_scale_give_the_same_logits(lora: dict[str, Any], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = hf_run(tmp_path / "made", **lora)
    folder = exported(run, tmp_path / "vllm")
    file = folder / "adapter_config.json"
    told = json.loads(file.read_text())
    assert not told["rank_pattern"]
    assert not told["alpha_pattern"]
    file.write_text(json.dumps({key: told[key] for key in OF_VLLM}))
    state = load_file(folder / "adapter_model.safetensors")
    ranks = {t.shape[0] if "lora_A" in name else t.shape[1] for name, t in state.items()}
    assert ranks == {told["r"]} == {7 if lora.get("rank_pattern") else 4}
    base = AutoModelForCausalLM.from_pretrained(str(tmp_path / "made" / "qwen2"))
    with torch.no_grad():
        alone = base(input_ids=IDS).logits
        answer = PeftModel.from_pretrained(base, str(folder))(input_ids=IDS).logits
    wanted = logits(run, IDS)
    assert_same(answer, wanted)
    assert (alone - wanted).abs().max() > 0.01, "the adapter counts"


def test_what_fits_stays_as_it_is(tmp_path: Path) -> None:
    adapter = load(str(hf_run(tmp_path)))
    made = served(adapter)
    assert made.config == {**adapter.config, "rank_pattern": {}, "alpha_pattern": {}}
    assert all(torch.equal(made.state[name], tensor) for name, tensor in adapter.state.items())


@pytest.mark.parametrize(
    ("lora", "named"),
    [
        ({"dora": True}, "use_dora"),
        ({"modules_to_save": ["norm"], "dora": True}, "use_dora, modules_to_save"),
        ({"trainable_tokens": ["!"]}, "trainable_token_indices"),
        ({"rank": 600}, r"rank 600 \(at most 512\)"),
    ],
)
def test_what_vllm_refuses_is_refused_first(
    lora: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"does not serve {named} beside a base. target=merged"):
        VLLM().check(load(str(hf_run(tmp_path, **lora))))


def test_the_line_is_one_that_vllm_takes(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", rank=9)
    folder = exported(run, tmp_path / "ficino")
    assert called_with(folder, "--port", "9000", place=tmp_path) == [
        *("serve", str(tmp_path / "made" / "qwen2")),
        *("--enable-lora", "--max-lora-rank", "16"),
        *("--lora-modules", f"ficino={folder}"),
        *("--generation-config", str(folder)),
        *("--chat-template", f"{folder}/chat_template.jinja"),
        *("--port", "9000"),
    ]
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2]
    template = run / "adapter" / "chat_template.jinja"
    assert (folder / "chat_template.jinja").read_bytes() == template.read_bytes()


def test_no_name_is_read_by_the_shell(tmp_path: Path) -> None:
    hostile = tmp_path / "a b'; touch run\n$(touch run)`touch run` \"$HOME"
    run = hf_run(hostile)
    folder = exported(run, tmp_path / "export")
    moved = tmp_path / "o'ther $(touch run) place"
    shutil.move(folder, moved)
    words = called_with(moved, place=tmp_path)
    assert words[1] == str(hostile / "qwen2")
    assert f"export={moved}" in words
    assert not (tmp_path / "run").exists()


def test_several_adapters_are_served_at_once(tmp_path: Path) -> None:
    run, other = (hf_run(tmp_path / name, rank=rank) for name, rank in (("one", 4), ("two", 40)))
    folder = exported(run, tmp_path / "first", adapters={"brass": str(other)})
    words = called_with(folder, place=tmp_path)
    place = words.index("--max-lora-rank")
    assert words[place : place + 4] == ["--max-lora-rank", "64", "--max-loras", "2"]
    place = words.index("--lora-modules")
    assert words[place + 1 : place + 3] == [f"first={folder}", f"brass={folder}/brass"]
    for place_, source in ((folder, run), (folder / "brass", other)):
        found = load_file(place_ / "adapter_model.safetensors")
        wanted = load_file(source / "adapter" / "adapter_model.safetensors")
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_adapters_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    run, other = hf_run(tmp_path / "one"), hf_run(tmp_path / "two")
    file = other / "adapter" / "chat_template.jinja"
    file.write_text(file.read_text().replace("{%- if add", "{{ '' }}{%- if add"))
    with pytest.raises(ConfigError, match="brass and .* different chat templates"):
        exported(run, tmp_path / "out", adapters={"brass": str(other)})
    elsewhere = hf_run(tmp_path / "three", "llama")
    with pytest.raises(ModelError, match="was trained on another base"):
        VLLM(adapters={"brass": str(elsewhere)}).check(load(str(run)))
    with pytest.raises(ModelError, match="there is no adapter or model at"):
        VLLM(adapters={"brass": str(tmp_path / "none")}).check_files()
    with pytest.raises(ConfigError, match="brass is called as the first adapter is"):
        exported(run, tmp_path / "brass", adapters={"brass": str(run)})


@pytest.mark.parametrize("name", ["a b", "-o", "a=b", "a/b", ""])
def test_names_are_such_as_clients_can_say(name: str) -> None:
    with pytest.raises(ConfigError, match="such as name=ficino-music"):
        VLLM(adapters={name: "RUN"})
    with pytest.raises(ConfigError, match="such as name=ficino-music"):
        VLLM().check_name(name)
