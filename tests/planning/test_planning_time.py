"""Workload, time and money: the steps training takes, hours that add up, limits that hold."""

from __future__ import annotations

import math

import pytest

from graftlab.data.profile import Profile
from graftlab.errors import ConfigError, DataError
from graftlab.machine import all_machines
from graftlab.planning.advice import AdvisedRun, advise
from graftlab.planning.timing import bill, rate, work
from graftlab.training.budget import Limits
from graftlab.training.guides import usual_rate


def test_steps_are_those_of_training(make_load) -> None:
    load = make_load(batch_size=2, accumulate=3, epochs=4)
    per_epoch = math.ceil(math.ceil(load.budget.rows / 2) / 3)
    assert load.budget.steps_per_epoch == per_epoch
    assert load.steps == 4 * per_epoch
    assert make_load(max_steps=7).steps == 7
    assert 0 < load.batch_tokens <= 2 * 2048
    assert load.batch_tokens > load.mean_batch_tokens > 0


def test_validation_counts_the_base_and_the_end(make_load) -> None:
    load = make_load(valid_tokens=1000, epochs=3)
    assert load.validations == 1 + 3
    per_epoch = load.budget.steps_per_epoch
    odd = make_load(valid_tokens=1000, max_steps=per_epoch + 1)
    assert odd.validations == 1 + 2
    assert make_load(epochs=3).validations == 0


def test_nothing_fits_a_row(make_load) -> None:
    with pytest.raises(DataError, match="shortest has 50 tokens"):
        make_load(max_length=40)


def test_hours_follow_steps_and_rates(make_shape, make_load) -> None:
    shape, device = make_shape(), all_machines()["h100"]
    once, twice = make_load(epochs=1), make_load(epochs=2)

    def hours(load, **options) -> float:
        needed = work(shape, load, checkpointing=False)
        flops = rate(device, "bf16") or 0.0
        return bill(needed, load, device, flops=flops, **options).hours

    assert hours(twice) == pytest.approx(2 * hours(once))
    assert hours(twice, done_steps=once.steps) == pytest.approx(hours(once))
    assert hours(twice, max_minutes=1e-9) < hours(once)
    assert hours(twice, tokens_per_second=1.0) == pytest.approx(
        2 * once.budget.tokens / 3600, rel=1e-6
    )


def test_checkpointing_and_dora_take_longer(make_shape, make_load) -> None:
    load = make_load()
    plain = work(make_shape(), load, checkpointing=False)
    again = work(make_shape(), load, checkpointing=True)
    assert 1.2 < again.train_token / plain.train_token < 1.6
    assert work(make_shape(dora=True), load, checkpointing=False).micro_batch > 0


def test_a_processor_takes_a_share_of_its_measured_peak() -> None:
    device = all_machines()["cpu"]
    assert rate(device, "bf16") is None
    assert 0 < (rate(device, "bf16", 1e12) or 0) < 1e12
    assert rate(all_machines()["h100"], "bf16", 1e12) == all_machines()["h100"].achieved.of("bf16")


def test_limits() -> None:
    limits = Limits(max_hours=2, max_cost=5)
    assert limits.passed(hours=1.9, cost=4.9) == []
    assert len(limits.passed(hours=2.1, cost=5.1)) == 2
    assert "budget.max_cost=5" in limits.passed(hours=1, cost=6)[0]
    assert not Limits().given
    with pytest.raises(ConfigError, match="budget.max_hours"):
        Limits(max_hours=0)


def test_a_profile_has_the_means_it_was_asked_for() -> None:
    lengths, labels = Profile(documents=5000, mean=1140, median=1012, answer=144).lengths()
    assert len(lengths) == len(labels) == 5000
    assert lengths.mean() == pytest.approx(1140, rel=0.01)
    assert sorted(lengths)[2500] == pytest.approx(1012, rel=0.01)
    assert labels.mean() == pytest.approx(144, rel=0.01)
    assert (labels <= lengths).all()
    short, _ = Profile(documents=100, mean=300, longest=310, median=200).lengths()
    assert short.max() == 310
    for wrong in ({"mean": 10, "answer": 20}, {"median": 2000}, {"documents": 0}):
        with pytest.raises(ConfigError, match=r"data\.profile"):
            Profile(**wrong)


USUAL = {
    "documents": 5000,
    "epochs": 5,
    "rank": 32,
    "lr": 1e-3,
    "scale": 0.5,
    "dora": False,
    "tiny": False,
    "max_length": 4095,
    "longest": 3379,
    "p95": 2000,
    "over_limit": 0,
    "early_stopping": False,
}


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"epochs": 50}, "epochs"),
        ({"documents": 20_000, "epochs": 3.5}, "epochs"),
        ({"documents": 900, "epochs": 5, "rank": 128}, "rank"),
        ({"scale": 4.0}, "learning rate"),
        ({"lr": 1e-5}, "learning rate"),
        ({"over_limit": 7}, "context length"),
        ({"compares": True, "lr": 1e-4}, "epochs"),
        ({"compares": True, "epochs": 1}, "learning rate"),
    ],
)
def test_advice_warns_of_the_one_thing_that_is_odd(changed, about) -> None:
    assert [a.about for a in advise(AdvisedRun(**USUAL)) if a.heed] == []
    assert [a.about for a in advise(AdvisedRun(**{**USUAL, **changed})) if a.heed] == [about]


def test_what_lr_auto_takes_is_never_odd() -> None:
    for compares in (False, True):
        lr = usual_rate(parameters=10**9, scale=0.5, compares=compares)
        run = AdvisedRun(**{**USUAL, "lr": lr, "compares": compares})
        (rate,) = [advice for advice in advise(run) if advice.about == "learning rate"]
        assert not rate.heed
    assert "2e-05 to 2e-04" in rate.text


def test_a_row_limit_is_no_matter_where_nothing_is_packed() -> None:
    loose = {**USUAL, "max_length": 9000}
    packed, alone = (advise(AdvisedRun(**loose, packed=on))[-1].text for on in (True, False))
    assert "would hold every one" in packed
    assert "Nothing is packed" in alone
    assert "would hold every one" not in alone


def test_every_piece_of_advice_has_a_reason() -> None:
    for documents in (100, 700, 5_000, 50_000):
        found = advise(AdvisedRun(**{**USUAL, "documents": documents}))
        assert [a.about for a in found] == ["epochs", "rank", "learning rate", "context length"]
        assert all("guide" in a.text for a in found[:3])
