"""Counts: what a plan says a model has is what the built model has."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.cli.compose import build, compose
from graftlab.errors import ConfigError, ModelError
from graftlab.models.architecture import Architecture
from graftlab.models.hf import HFModel
from graftlab.models.metadata import read_metadata
from graftlab.planning.inputs import shape_of
from miniatures import TRANSFORMERS

ADAPTERS = {
    "attn-mlp": Lora(),
    "all-linear": Lora(targets="all-linear", rank=5),
    "dora": Lora(dora=True, targets="attn"),
    "last layer": Lora(layers=1),
    "head in full": Lora(modules_to_save=["lm_head"]),
    "ranks": Lora(rank_pattern={"q_proj|qkv_proj": 3, "layers.1.*": 20}, dora=True),
    "tokens": Lora(trainable_tokens=["!", "<|im_end|>"]),
}


@cache
def default() -> Any:
    return build(compose("train", ["run_dir=run"])).training()


def spec_of(folder: Path, lora: Lora) -> Any:
    return replace(default(), model=HFModel(path=str(folder)), lora=lora)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_parameters_equal_a_built_model(kind, make_miniature, make_base) -> None:
    spec = spec_of(make_miniature(kind), Lora())
    shape = shape_of(read_metadata(spec.model), spec, 16)
    base = make_base(kind)
    assert shape.parameters == base.num_parameters
    assert shape.layers == len(base.layers)
    assert shape.vocab == base.vocab_size


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("kind", ["qwen2", "llama", "phi3", "gemma3"])
def test_trainable_parameters_equal_an_attached_adapter(
    name, kind, make_miniature, make_base
) -> None:
    import torch

    lora = ADAPTERS[name]
    spec = spec_of(make_miniature(kind), lora)
    shape = shape_of(read_metadata(spec.model), spec, lora.rank)
    adapter = attach(make_base(kind), lora, seed=0, dtype=torch.float32)
    assert shape.trainable == adapter.num_trainable > 0


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gemma2", "qwen3_moe"])
def test_a_config_alone_counts_the_same(kind, make_miniature, tmp_path) -> None:
    whole = make_miniature(kind)
    shutil.copy(whole / "config.json", tmp_path)
    from_files, from_config = (
        shape_of(described, spec, 16)
        for spec in (spec_of(whole, Lora()), spec_of(tmp_path, Lora()))
        for described in [read_metadata(spec.model)]
    )
    assert from_config.parameters == from_files.parameters
    assert from_config.trainable == from_files.trainable
    assert "config.json" in from_config.source


def test_work_is_what_training_counts(make_miniature, make_base) -> None:
    """The recorder's share of the peak and the plan's hours rest on the same operations."""
    import numpy as np
    import torch

    from graftlab.packing.plan import Packing
    from graftlab.planning.timing import work
    from graftlab.planning.workload import Documents, StepSettings, lay_out
    from graftlab.training.flops import flops_per_token

    lengths = np.array([100, 200, 300])
    schedule = StepSettings(batch_size=1, accumulate=1, epochs=1, max_steps=None)
    load = lay_out(Documents(lengths, lengths // 4, "test"), Packing(), schedule)
    spec = spec_of(make_miniature("qwen2"), Lora())
    shape = shape_of(read_metadata(spec.model), spec, 16)
    adapter = attach(make_base("qwen2"), Lora(), seed=0, dtype=torch.float32)
    counted = flops_per_token(
        adapter.base, num_trainable=adapter.num_trainable, mean_length=200.0, labelled_share=0.25
    )
    assert work(shape, load, checkpointing=False).train_token == pytest.approx(counted, rel=1e-6)


PUBLISHED = {
    "qwen2.5-0.5b-instruct": 494_032_768,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-coder-14b-instruct": 14_770_033_664,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures(name: str) -> None:
    model = build(compose("train", [f"model={name}", "run_dir=run"])).model
    sizes = [_product(shape) for shape in model.architecture.tensors().values()]
    assert sum(sizes) == PUBLISHED[name]


def test_the_ficino_guide_s_base() -> None:
    """3,178,001,792 parameters in all, 66,633,728 of them in adapters of rank 32."""
    spec = build(compose("plan", ["experiment=ficino"]))
    shape = shape_of(read_metadata(spec.model), spec, spec.lora.rank)
    assert shape.trainable == 66_633_728
    assert shape.parameters + shape.trainable == 3_178_001_792


def test_a_plan_counts_the_files_of_apple_s_model(afm_folder, make_afm) -> None:
    """By the config alone, and as the loaded base and its adapter count."""
    import torch

    model = [f"model.path={afm_folder}", "lora=attn-mlp", "lora.rank=4"]
    spec = build(compose("plan", ["model=afm-3b", *model]))
    found = read_metadata(spec.model)
    shape = shape_of(found, spec, spec.lora.rank)
    base = make_afm()
    adapter = attach(base, spec.lora, seed=0, dtype=torch.float32)
    assert found.source == "counted from its config"
    assert shape.parameters == base.num_parameters
    assert shape.trainable == adapter.num_trainable
    sizes = base.dimensions
    assert (shape.hidden, shape.vocab) == (sizes.hidden_size, sizes.vocab_size)
    assert shape.heads * shape.head_dim == sizes.attention_width


def test_half_an_architecture_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.architecture\.layers"):
        Architecture(hidden_size=64)


def test_a_config_without_numbers_is_refused(tmp_path) -> None:
    from graftlab.planning.shape import Adapted, measure

    with pytest.raises(ModelError, match="num_hidden_layers or n_layer"):
        measure({}, {"hidden_size": 8}, Adapted([], 4), name="odd", source="test")


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
