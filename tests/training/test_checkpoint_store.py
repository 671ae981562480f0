"""Which checkpoints are kept, and which one is the best and the last."""

from __future__ import annotations

import pytest

from graftlab.errors import ConfigError
from graftlab.tracking.ranking import Ranking
from graftlab.training.checkpoint import Checkpointing, CheckpointStore


def save(store, step, loss):
    path = store.path(step, {} if loss is None else {"valid_loss": loss}, Ranking())
    store.partial(path).write_bytes(b"x")
    store.publish(path)
    return path


def test_the_best_two_and_the_last_are_kept(tmp_path):
    store = CheckpointStore(tmp_path)
    for step, loss in enumerate([1.5, 1.2, 1.1, 1.3, None], start=1):
        save(store, step, loss)
        store.prune(2)
    assert [(s.step, s.valid_loss) for s in store.saved()] == [(2, 1.2), (3, 1.1), (5, None)]
    assert store.best().step == 3
    assert store.last().step == 5


def test_there_is_one_to_fall_back_on_until_the_end(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        save(store, step, None)
        store.prune(2)
    assert [s.step for s in store.saved()] == [2, 3]
    store.prune(2, ends=True)
    assert [s.step for s in store.saved()] == [3]


def test_equal_losses_prefer_the_earlier(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        save(store, step, 1.25)
    assert store.best().step == 1


def test_a_torn_write_is_invisible_and_swept_away(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1, 2.0)
    torn = store.partial(store.path(2, {"valid_loss": 1.0}, Ranking()))
    torn.write_bytes(b"half")
    assert store.last().step == store.best().step == 1
    store.prune("all")
    assert not torn.exists()


def test_without_validation_the_best_is_the_last(tmp_path):
    store = CheckpointStore(tmp_path)
    assert store.last() is None
    assert store.best() is None
    save(store, 1, None)
    save(store, 2, None)
    assert store.best() == store.last()


def test_keep_is_a_number_or_all():
    assert Checkpointing(keep="all").keep == "all"
    for wrong in (0, "some", True, 1.5):
        with pytest.raises(ConfigError, match="checkpoint.keep"):
            Checkpointing(keep=wrong)
