"""`graftlab tune`: what a line is read as, and what is refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chats import chats
from graftlab.sweeps.step_counts import lengths_of
from graftlab.tuning.run import TuneOrder
from kept_logging import kept_logging
from knocking import Knock, knock

Tune = Callable[..., Knock]


@pytest.fixture
def orders() -> list[TuneOrder]:
    return []


@pytest.fixture
def tune(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    qwen2_folder: Path,
    orders: list[TuneOrder],
) -> Any:
    monkeypatch.chdir(tmp_path)
    chats(tmp_path / "chats.jsonl", 24)
    monkeypatch.setattr("graftlab.verbs.tune.run", orders.append)
    monkeypatch.setattr("graftlab.cli.tune.conclude", lambda *told: None)
    monkeypatch.setattr("graftlab.cli.tune.lengths_apart", lengths_of)

    def call(*words: str) -> Knock:
        data = ["data=jsonl", "data.train=chats.jsonl", "packing.max_length=80"]
        return knock(capsys, "tune", "model=hf", f"model.path={qwen2_folder}", *data, *words)

    with kept_logging():
        yield call


def test_the_space_is_that_of_the_guides_unless_it_is_typed(
    tune: Tune, orders: list[TuneOrder]
) -> None:
    tune("data.valid_fraction=0.2", "lora.rank=2,4", "lora.dropout=0,0.1", "sweep=targets")
    (order,) = orders
    space = order.tuner.space
    assert {axis.key: axis.values for axis in space.axes} == {
        "lr": ("0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01"),  # around the guides' 1e-3
        "lora.rank": ("2", "4"),
        "lora.dropout": ("0", "0.1"),
        "lora.targets": ("attn", "attn-mlp", "all-linear"),
    }
    assert space.widens
    assert sorted(order.tuner.epochs.values()) == [2, 5, 10]  # the guides' 10, a half, a quarter
    base = order.sweep.base
    assert (base.schedule.shape, base.schedule.warmup_steps, base.compile) == ("wsd", 4, "off")
    assert order.sweep.keeps == sorted(set(space.shared.values()))
    assert order.sweep.folder.parent == Path("multirun")


def test_what_is_typed_once_is_not_tuned(tune: Tune, orders: list[TuneOrder]) -> None:
    tune("data.valid_fraction=0.2", "lr=1e-3", "lora.rank=4", "epochs=2", "schedule=cosine")
    (order,) = orders
    assert [axis.key for axis in order.tuner.space.axes] == []
    assert len(order.tuner.space.cells) == 1
    assert order.sweep.base.schedule.shape == "cosine"
    assert not order.tuner.space.widens


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.valid_fraction=0.2", "batch_size=1,2"], "batch_size cannot be tuned"),
        (["data.valid_fraction=0.2", "epochs=0,2"], "give whole numbers, as in epochs=1,2,4"),
        (["data.valid_fraction=0.2", "max_steps=9"], "give epochs=1,2,4 instead"),
        (["data.valid_fraction=0"], "give data.valid=FILE or data.valid_fraction=0.1"),
        (["data.valid_fraction=0.2", "lr=interval(1e-4,1e-2)"], "a list of values"),
        (["data.valid_fraction=0.2", "tune.share=2"], "tune.share=2.0"),
        (["data.valid_fraction=0.2", "sweep=lr-rank-epochs"], "searches and prunes by itself"),
        (["data.valid_fraction=0.2", "lora.rank=4,many"], "lora.rank"),
    ],
)
def test_what_cannot_be_tuned_is_told(
    tune: Tune, orders: list[TuneOrder], words: list[str], said: str
) -> None:
    answer = tune(*words)
    assert answer.code == 2
    assert said in answer.err
    assert orders == []
