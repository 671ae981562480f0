"""Learning-rate schedules: warm-up in three units, four shapes, one warm-up at most."""

from __future__ import annotations

import math

import pytest

from graftlab.errors import ConfigError
from graftlab.training.schedule import Schedule


def curve(schedule: Schedule, total: int, *, per_epoch: int = 10) -> list[float]:
    warmup = schedule.warmup(total_steps=total, steps_per_epoch=per_epoch)
    return [schedule.factor(step, warmup=warmup, total_steps=total) for step in range(total)]


def test_cosine_warms_up_and_falls_to_the_floor():
    factors = curve(Schedule(shape="cosine", warmup_ratio=0.1, final_factor=0.1), 100)
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1.0
    assert factors == factors[:10] + sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert 0.1 < factors[-1] < 0.11


def test_linear_constant_and_warmup_only():
    assert curve(Schedule(shape="linear"), 4) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert curve(Schedule(shape="constant"), 3) == [1, 1, 1]
    assert curve(Schedule(shape="constant", warmup_epochs=0.2), 4) == [0.5, 1, 1, 1]


def test_wsd_is_constant_until_its_decay():
    factors = curve(Schedule(shape="wsd", warmup_steps=5, decay_ratio=0.2), 50)
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(factors[5:41]) == {1.0}
    assert factors[41:] == pytest.approx([1 - i / 10 for i in range(1, 10)])


def test_every_step_moves():
    for shape in ("cosine", "linear", "wsd"):
        assert min(curve(Schedule(shape=shape, warmup_steps=3), 20)) > 0


def test_two_warmups_are_refused_with_the_way_out():
    with pytest.raises(
        ConfigError, match="warmup_steps and warmup_epochs .* set the other to null"
    ):
        Schedule(warmup_steps=10, warmup_epochs=1)
