"""`metrics=` where training takes it: inside `callbacks.evaluate`, by the same names."""

from __future__ import annotations

import pytest

from composing import composed
from graftlab.cli.main import main
from graftlab.errors import ConfigError

ON = "callbacks=[default,evaluate]"


def test_metrics_stand_inside_the_callback() -> None:
    made = composed(
        *("train", ON, "metrics=[number,exact-match]", "metrics.number.tolerance=0.5"),
        *("callbacks.evaluate.prompts=a b.jsonl", "sweep.metric=number"),
    )
    evaluate = made["callbacks"]["evaluate"]
    assert set(evaluate["metrics"]) == {"number", "exact_match"}
    assert evaluate["metrics"]["number"]["tolerance"] == 0.5
    assert (evaluate["prompts"], evaluate["limit"]) == ("a b.jsonl", 64)
    assert made["checkpoint"]["by"] == "number", "what jobs are compared by makes the best"
    usual = composed("train", ON)["callbacks"]["evaluate"]
    assert set(usual["metrics"]) == {"exact_match"}
    assert "evaluate" not in composed("train")["callbacks"]


def test_sweep_and_checkpoints_go_by_the_same() -> None:
    with pytest.raises(ConfigError, match="leave one out"):
        composed("train", ON, "sweep.metric=exact-match", "checkpoint.by=style")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metrics=number"], "`metrics`: callbacks.evaluate is off in this configuration. Turn it"),
        ([ON, "metrics=numbr"], "Did you mean `number`?"),
        (["metrics.number.tolerance=1"], "callbacks.evaluate is off in this configuration."),
        ([ON, "checkpoint.by=number"], "checkpoint.by=number is not one of loss, exact-match/"),
        (["-m", ON, "metrics=number,style"], "cannot be swept"),
        (["-m", ON, "checkpoint.by=loss,exact-match"], "cannot be swept"),
    ],
)
def test_what_is_told_where_it_cannot_be(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 2
    assert said in capsys.readouterr().err
