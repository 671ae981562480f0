"""The composer of a sweep: a point is what composing it in full would give, and quick."""

from __future__ import annotations

import json

import pytest
from omegaconf.errors import ConfigAttributeError

from graftlab.cli.compose import Composer, build, compose
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


@pytest.mark.parametrize("words", SWEEPS, ids=" ".join)
def test_points_are_what_composing_each_would_give(words: list[str]) -> None:
    choices = read_schema("train", [conf_dir()])
    found = [(word, dimension_of(word, choices)) for word in words]
    fixed = [word for word, dimension in found if dimension is None]
    points = grid([dimension for _, dimension in found if dimension is not None])
    composer = Composer("train", fixed, groups=choices.groups)
    jobs = []
    for point in points:
        quick = composer.compose(point)
        whole = compose("train", [*fixed, *(f"{key}={text}" for key, text in point.items())])
        for cfg in (quick, whole):
            cfg.run_dir = ""
        jobs.append(dump(build(quick)))
        assert jobs[-1] == dump(build(whole))
    assert len({json.dumps(job) for job in jobs}) == len(points) > 1


def test_a_key_that_an_option_lacks_is_refused() -> None:
    composer = Composer("train", [], groups=["objective"])
    with pytest.raises(ConfigAttributeError, match="temperature"):
        composer.compose({"objective": "sft", "objective.temperature": "2.0"})
