"""`quantization=...` is a group whose choice stands inside the model's: typed, told and swept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from graftlab.cli.compose import build, compose
from graftlab.cli.help import group_help
from graftlab.cli.overrides import read_arguments
from graftlab.cli.preflight import CommandLine, verify
from graftlab.cli.schema import read_schema
from graftlab.cli.validate import check_arguments
from graftlab.errors import ConfigError, GraftlabError
from graftlab.files.paths import conf_dir
from graftlab.models.base import ModelSpec
from graftlab.models.quantization.base import Quantization
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from graftlab.registry import dump, group_at, place_of, restore
from graftlab.sweeps.identity import sweep_name

CONF = conf_dir()


def hydra_words(words: Sequence[str], verb: str) -> list[str]:
    schema = read_schema(verb, [CONF])
    ready = check_arguments(read_arguments(words, verb), schema, multirun=False)
    return [word.hydra for word in ready]


def spec_of(*words: str, verb: str = "train") -> Any:
    cfg = compose(verb, hydra_words(words, verb))
    if verb == "train":
        cfg.run_dir = "run"
    return build(cfg)


def verified(words: Sequence[str], verb: str) -> None:
    verify(CommandLine(read_schema(verb, [CONF]), CONF), hydra_words(words, verb))


def refused(*words: str, verb: str = "train") -> str:
    with pytest.raises(GraftlabError) as caught:
        verified(words, verb)
    return str(caught.value)


def test_its_choice_is_a_part_of_the_model() -> None:
    assert spec_of().model.quantization == Quantization()
    assert spec_of("quantization=int8").model.quantization == Int8()
    asked = NF4(double=True)
    for key in ("quantization.double", "model.quantization.double"):
        assert spec_of("quantization=nf4", f"{key}=true").model.quantization == asked
    assert spec_of("model.quantization=nf4").model.quantization == NF4()
    model = spec_of("quantization=nf4", "quantization.double=true").model
    assert restore(ModelSpec, dump(model)) == model


def test_a_model_without_it_is_as_it_was() -> None:
    """Runs of before there was such a key."""
    old = {k: v for k, v in dump(spec_of().model).items() if k != "quantization"}
    assert restore(ModelSpec, old) == spec_of().model


@pytest.mark.parametrize("verb", ["sample", "export"])
def test_a_base_that_is_given_may_be_stored_otherwise(verb: str) -> None:
    needs = ["prompt=x"] if verb == "sample" else ["target=peft", "out=o"]
    words = ["adapter=a", "model=hf", "model.path=p", "quantization=nf4", *needs]
    assert spec_of(*words, verb=verb).model.quantization == NF4()
    assert spec_of("adapter=a", *needs, verb=verb).model is None


def test_mistakes_are_told_with_the_key() -> None:
    assert "Did you mean `model.quantization.double`?" in refused(
        "quantization=nf4", "quantization.duble=true"
    )
    assert "it belongs to quantization=nf4" in refused("quantization=int8", "quantization.double=1")
    alone = refused("adapter=a", "prompt=x", "quantization=nf4", verb="sample")
    assert "choose model=" in alone
    assert "or leave it out: an adapter knows its base." in alone
    told = refused("model=afm-3b", "model.path=x", "quantization=int8")
    assert "not those of model=afm-3b" in told


def test_codes_are_not_trained_and_not_sharded() -> None:
    with pytest.raises(ConfigError, match="quantization=nf4 .* lora=none trains every weight"):
        spec_of("quantization=nf4", "lora=none")
    with pytest.raises(ConfigError, match="trainer=fsdp2 .* quantization=int8 .* trainer=ddp"):
        spec_of("quantization=int8", "trainer=fsdp2")


def test_help_lists_its_keys() -> None:
    told = group_help(read_schema("train", [CONF]), "quantization", "graftlab train")
    assert "quantization=OPTION: int8  nf4  none*" in told
    assert "quantization.double" in told


def test_a_sweep_over_it_has_one_name() -> None:
    """Whatever its first job is; what is typed for all jobs counts."""
    first, second = (dump(spec_of(f"quantization={name}")) for name in ("none", "nf4"))
    assert sweep_name(first, ["quantization"]) == sweep_name(second, ["quantization"])
    typed = {"model.quantization.head": "true"}
    assert sweep_name(first, ["quantization"], typed=typed) != sweep_name(first, ["quantization"])


def test_option_files_say_where_they_stand() -> None:
    assert place_of("quantization") == "model.quantization"
    assert group_at("model.quantization") == "quantization"
    assert (place_of("lora"), group_at("lora.rank")) == ("lora", "lora.rank")
    files = sorted((CONF / "quantization").glob("[!_]*.yaml"))
    assert len(files) == 3
    for file in files:
        assert Path(file).read_text().startswith("# @package model.quantization\n")
