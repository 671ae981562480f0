"""The four seeds as experiments: their numbers survive composition, and they train."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftlab.cli.compose import build, compose
from graftlab.files.paths import conf_dir
from graftlab.registry import dump

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

AIROAD: dict[str, Any] = {
    "model.hub": "Qwen/Qwen2.5-0.5B-Instruct",
    "max_steps": 120,
    "max_minutes": 10,
    "lr": 6e-5,
    "accumulate": 8,
    "packing.strategy": "none",
    "packing.max_length": 512,
    "data.limit": 96,
    "lora.targets": "attn-mlp",
    "lora.rank": 16,
    "lora.alpha": 32,
    "lora.dropout": 0.05,
}

KL: dict[str, Any] = {
    "lr": 5e-5,
    "objective.kl_lambda": 0.04,
    "objective.kl_tau": 1.0,
    "objective.kl_direction": "forward",
    "objective.kl_budget": None,
}

SEEDS: dict[str, dict[str, Any]] = {
    "ficino": {
        "epochs": 5,
        "lr": 1e-3,
        "batch_size": 4,
        "accumulate": 1,
        "packing.strategy": "best-fit",
        "packing.max_length": 4095,
        "precision.name": "bf16-mixed",
        "data.default_instruction": "A conversation between a user and a helpful assistant.",
        "lora.targets": "all-linear",
        "lora.rank": 32,
        "lora.alpha": 16,
        "optimizer.weight_decay": 0.01,
        "optimizer.clip_norm": 1.0,
        "schedule.shape": "cosine",
        "schedule.warmup_epochs": 1,
        "schedule.warmup_ratio": None,
        "checkpoint.every_epochs": 1,
        "checkpoint.keep": 2,
        "generation.max_new_tokens": 256,
        "generation.temperature": 0.7,
        "generation.top_k": 50,
    },
    "hafs-coder": {
        "model.hub": "Qwen/Qwen2.5-Coder-14B-Instruct",
        "model.gradient_checkpointing": True,
        "epochs": 3,
        "lr": 2e-4,
        "batch_size": 4,
        "accumulate": 4,
        "precision.name": "fp16-mixed",
        "lora.targets": PROJECTIONS,
        "lora.rank": 64,
        "lora.alpha": 128,
        "lora.dropout": 0.05,
        "optimizer.weight_decay": 0.01,
        "schedule.warmup_steps": 100,
        "schedule.warmup_ratio": None,
    },
    "airoad-fast-plain": {**AIROAD, "lora.dora": False},
    "airoad-fast-dora": {**AIROAD, "lora.dora": True},
    "airoad-fast-kl": {**AIROAD, **KL, "lora.dora": False},
    "airoad-fast-dora-kl": {**AIROAD, **KL, "lora.dora": True},
    "systems-theologian": {
        "model.hub": "Qwen/Qwen2.5-14B",
        "model.quantization.title": "nf4",
        "model.gradient_checkpointing": True,
        "max_steps": 2100,
        "batch_size": 1,
        "accumulate": 4,
        "lr": 1e-5,
        "seed": 42,
        "schedule.shape": "constant",
        "schedule.warmup_ratio": None,
        "lora.targets": PROJECTIONS,
        "lora.rank": 64,
        "lora.scale": 2.0,
        "lora.dropout": 0.1,
        "callbacks.validation.every_steps": 200,
        "checkpoint.every_steps": 200,
        "trainer.log_every": 10,
    },
}

SEEDS["draft"] = {
    "epochs": 2,
    "lr": 1e-3,
    "lora.full": True,
    "objective.divergence": "forward",
    "objective.draft_tokens": 5,
    "optimizer.weight_decay": 0.01,
    "optimizer.clip_norm": 1.0,
    "schedule.shape": "constant",
    "schedule.warmup_epochs": 1,
    "schedule.warmup_ratio": None,
    "checkpoint.keep": 2,
}

MINIATURES = {
    "draft": "qwen2",
    "ficino": "llama",
    "hafs-coder": "qwen2",
    "airoad-fast-plain": "qwen2",
    "airoad-fast-dora": "qwen2",
    "airoad-fast-kl": "qwen2",
    "airoad-fast-dora-kl": "qwen2",
    "systems-theologian": "qwen2",
}


@cache
def experiment(name: str, *overrides: str) -> Any:
    owed = {"ficino": ["model.path=assets"], "draft": ["objective.teacher=RUN"]}
    given = [*owed.get(name, []), "data.train=chats.jsonl", *overrides]
    cfg = compose("train", [f"experiment={name}", "run_dir=run", *given])
    return build(cfg)


@cache
def default_spec() -> Any:
    return build(compose("train", ["run_dir=run"]))


def test_hafs_coder_on_a_card_that_is_too_small() -> None:
    """The guide's troubleshooting: its 8-bit base, and nothing else of the run is another."""
    plain = dict(leaves(dump(experiment("hafs-coder"))))
    eight = dict(leaves(dump(experiment("hafs-coder", "quantization=int8"))))
    assert "quantization=int8" in (conf_dir() / "experiment" / "hafs-coder.yaml").read_text()
    assert plain.keys() <= eight.keys()
    assert {key: value for key, value in eight.items() if plain.get(key, "absent") != value} == {
        "model.quantization.choice": "int8",
        "model.quantization.head": False,
        "model.quantization.cache": False,
    }


def value_of(spec: Any, key: str) -> Any:
    for name in key.split("."):
        spec = getattr(spec, name, None)
    return spec


def leaves(content: dict[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value


def number(value: Any) -> Any:
    """PyYAML reads 1e-3 as text; Hydra does not."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def written(name: str) -> dict[str, Any]:
    """The values of an experiment's file, and of the one that it inherits from."""
    text = (conf_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    from_others = [one for one in content.pop("defaults") if isinstance(one, str) and one in SEEDS]
    values = {key: value for other in from_others for key, value in written(other).items()}
    return values | {key: number(value) for key, value in leaves(content)}


def test_every_experiment_is_covered() -> None:
    files = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    assert files - {"elevator"} == set(SEEDS) == set(MINIATURES)


def test_the_elevator_trains_on_what_comes_with_it(
    tmp_path: Path, make_miniature: Callable[[str], Path]
) -> None:
    """It is no guide's, and needs nothing but the model that it names."""
    from graftlab.training import start

    spec = build(compose("train", ["experiment=elevator", "run_dir=run"]))
    found = {key: value_of(spec, key) for key in ("model.package", "epochs", "lr")}
    assert found == {"model.package": "smollm2-135m-instruct", "epochs": 4, "lr": 5e-4}
    assert {key: value_of(spec, key) for key in written("elevator")} == written("elevator")
    small = ["model=hf", f"model.path={make_miniature('llama')}", "max_steps=2", "compile=off"]
    small += ["packing.max_length=2048", "logger=none", f"run_dir={tmp_path / 'run'}"]
    spec = build(compose("train", ["experiment=elevator", *small]))
    assert start.run(spec.training()).steps == 2


@pytest.mark.parametrize("name", SEEDS)
def test_the_seed_s_numbers(name: str) -> None:
    spec = experiment(name)
    assert {key: value_of(spec, key) for key in SEEDS[name]} == SEEDS[name]


@pytest.mark.parametrize("name", SEEDS)
def test_every_written_value_survives(name: str) -> None:
    spec = experiment(name)
    values = written(name)
    assert len(values) > 10
    assert {key: value_of(spec, key) for key in values} == values


@pytest.mark.parametrize("name", SEEDS)
def test_the_user_wins_and_nothing_else_changes(name: str) -> None:
    plain = dict(leaves(dump(experiment(name))))
    changed = dict(leaves(dump(experiment(name, "lr=0.5", "lora.rank=3", "logger=none"))))
    differing = {k for k in plain.keys() | changed.keys() if plain.get(k) != changed.get(k)}
    assert changed["lr"] == 0.5
    assert changed["lora.rank"] == 3
    assert {k for k in differing if not k.startswith("logger.")} == {"lr", "lora.rank"}


@pytest.mark.parametrize("name", SEEDS)
def test_a_default_would_differ(name: str) -> None:
    """Guards the tests above: most of the written values are not simply the defaults."""
    default = default_spec()
    same = [key for key, value in written(name).items() if value_of(default, key) == value]
    assert len(same) < len(written(name)) / 2


TRAINED = [
    *("draft", "ficino", "hafs-coder", "airoad-fast-dora-kl", "systems-theologian"),
    *(
        pytest.param(name, marks=pytest.mark.slow)  # the one with both says the same, and more
        for name in ("airoad-fast-plain", "airoad-fast-dora", "airoad-fast-kl")
    ),
]


@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_a_few_steps_on_a_miniature(
    name: str, tmp_path: Path, make_miniature: Callable[[str], Path]
) -> None:
    from graftlab.training import start

    chats = tmp_path / "chats.jsonl"
    rows = [
        [
            {"role": "user", "content": f"Which side opens with song number {n}?"},
            {"role": "assistant", "content": f"The {'first' if n % 2 else 'second'} side."},
        ]
        for n in range(40)
    ]
    chats.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    miniature = make_miniature(MINIATURES[name])
    base = ["model=hf", f"model.path={miniature}"]
    small = [
        *(base if name != "draft" else [f"objective.teacher={miniature}"]),
        f"data.train={chats}",
        "max_steps=2",
        "precision=fp32",
        "trainer=cpu",
        "logger=none",
        "generation.max_new_tokens=4",
        "compile=off",
        f"run_dir={tmp_path / 'run'}",
    ]
    spec = build(compose("train", [f"experiment={name}", *small]))
    result = start.run(spec.training())
    assert result.steps == 2
    weights = "model.safetensors" if name == "draft" else "adapter_model.safetensors"
    assert (Path(result.adapter) / weights).is_file()
