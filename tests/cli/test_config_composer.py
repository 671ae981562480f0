"""What is composed from what options came to before is what Hydra composes in full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from graftlab.cli.compose import Composer, build, compose, initialized
from graftlab.cli.schema import read_schema
from graftlab.cli.space import dimension_of
from graftlab.files.paths import conf_dir
from graftlab.registry import dump
from graftlab.sweeps.space import grid

SWEEPS = [
    ["lr=1e-3,1e-4", "lora.rank=4,16"],
    ["lora=attn,dora", "lora.rank=4,8", "epochs=1,2"],
    ["optimizer=adamw", "optimizer.weight_decay=0.0,0.1", "callbacks=quiet,default"],
    ["precision=fp32,bf16-mixed", "lora.targets=[q_proj],[k_proj,v_proj]", "seed=range(0,3)"],
    ["max_steps=null,3", "+name=one", "resume=auto"],
    ["experiment=airoad-fast-plain,airoad-fast-dora", "data.train=F", "lr=1e-4,3e-4"],
]


WORDS = [
    [],
    ["lr=1e-3", "+name=one", "++data.limit=5", "lora.targets=[k_proj,v_proj]", "max_steps=null"],
    ["lora.rank=4", "lora={rank: 8}", "lora=dora", "callbacks=[default,plateau]"],
    ["hydra.run.dir=here", "hydra.job.chdir=false", "optimizer=custom", "seed=3"],
    ["optimizer=custom", "++optimizer.arguments.momentum=0.9", "optimizer.target=torch.optim.SGD"],
]
WRONG = ["lora.rnak=3", "max_steps=soon", "lora=nonsense", "epochs=1,2", "lr=(1", "+lr=3", "x@y=3"]


def in_full(words: Sequence[str], *, node: bool = False) -> DictConfig:
    """By Hydra, which knows nothing of what was composed before."""
    with initialized(conf_dir()):
        return hydra.compose("train", overrides=list(words), return_hydra_config=node)


def built(cfg: DictConfig) -> Any:
    cfg.run_dir = ""
    return dump(build(cfg))


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
@pytest.mark.parametrize("node", [False, True])
def test_it_is_what_hydra_composes(words: list[str], node: bool) -> None:
    """In both orders of asking, Hydra's notes on its own node included."""
    compose("train", ["lr=0.5", *words, "seed=7"])["lora"]["rank"] = 77
    found, wanted = compose("train", words, hydra=node), in_full(words, node=node)
    shown, full = (OmegaConf.to_container(cfg, resolve=False) for cfg in (found, wanted))
    assert shown == full
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(wanted), "the order, too"
    assert OmegaConf.is_struct(found)


@pytest.mark.parametrize("word", WRONG)
def test_hydra_refuses_in_the_same_words(word: str) -> None:
    with pytest.raises(Exception) as wanted:  # noqa: PT011
        in_full([word])
    for _ in range(2):
        with pytest.raises(type(wanted.value)) as found:
            compose("train", [word])
        assert str(found.value) == str(wanted.value)


def test_a_file_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    words = [f"hydra.searchpath=[file://{tmp_path}]", "lora=mine"]
    for rank in (3, 4):
        (tmp_path / "lora" / "mine.yaml").write_text(f"rank: {rank}{' ' * rank}\n")
        assert compose("train", words).lora.rank == rank
        assert compose("train", [*words, "lr=0.5"]).lora.rank == rank


@pytest.mark.parametrize("words", SWEEPS, ids=" ".join)
def test_points_are_what_composing_each_would_give(words: list[str]) -> None:
    choices = read_schema("train", [conf_dir()])
    found = [(word, dimension_of(word, choices)) for word in words]
    fixed = [word for word, dimension in found if dimension is None]
    points = grid([dimension for _, dimension in found if dimension is not None])
    composer = Composer("train", fixed, groups=choices.groups)
    jobs = []
    for point in points:
        jobs.append(built(composer.compose(point)))
        if point in (points[0], points[-1]):
            whole = in_full([*fixed, *(f"{key}={text}" for key, text in point.items())])
            assert jobs[-1] == built(whole)
    assert len({json.dumps(job) for job in jobs}) == len(points) > 1


def test_a_key_that_an_option_lacks_is_refused() -> None:
    composer = Composer("train", [], groups=["objective"])
    with pytest.raises(ConfigAttributeError, match="temperature"):
        composer.compose({"objective": "sft", "objective.temperature": "2.0"})
