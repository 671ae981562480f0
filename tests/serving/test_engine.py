"""Jobs that wait together are one batch; those that nobody waits for cost nothing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from graftlab.generation.loop import decode
from graftlab.generation.sampling import Generation
from graftlab.serving import engine as module
from graftlab.serving.engine import Engine
from graftlab.serving.jobs import Ended, Event, Failed, Job, Piece, make_job
from graftlab.serving.requests import RequestError, read_request
from served import Shop


class Asked:
    """One job, and what was told of it."""

    def __init__(self, shop: Shop, name: str, text: str, **body: Any) -> None:
        self.told: queue.Queue[Event] = queue.Queue()
        whole = {"model": name, "messages": [{"role": "user", "content": text}], "temperature": 0}
        asked = read_request({"max_tokens": 8, **whole, **body}, Generation(), most_choices=8)
        self.job: Job = make_job(asked, shop.models[name], shop.base, self.told.put)

    def wait(self) -> str:
        """The text of its one choice."""
        text = ""
        while not isinstance(event := self.told.get(timeout=60), Ended):
            assert isinstance(event, Piece), event
            text += event.text
        return text


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The turns of every batch that is decoded."""
    seen: list[list[Any]] = []

    def noting(base: Any, turns: Any, **more: Any) -> None:
        seen.append(list(turns))
        decode(base, turns, **more)

    monkeypatch.setattr(module, "decode", noting)
    return seen


@pytest.fixture
def engine(shop: Shop) -> Iterator[Engine]:
    engine = Engine(shop.base, nullcontext, batch=4)
    yield engine
    engine.close()


def test_those_of_one_adapter_are_answered_together(
    shop: Shop, engine: Engine, batches: list[Any]
) -> None:
    names = ["one", "two", "one", "base", "one", "one", "one", "two"]
    asked = [Asked(shop, name, f"Question {number}") for number, name in enumerate(names)]
    for each in asked:
        engine.submit(each.job)
    engine.start()
    said = [each.wait() for each in asked]
    assert [len(batch) for batch in batches] == [4, 2, 1, 1]
    engine.close()  # one thread at a time uses the model
    for number, (name, text) in enumerate(zip(names, said, strict=True)):
        alone = Asked(shop, name, f"Question {number}")
        with alone.job.model.speaking():
            decode(shop.base, alone.job.turns)
        assert text == alone.wait()
    assert len(set(said)) > 4


def test_choices_count_as_rows_and_settings_may_differ(
    shop: Shop, engine: Engine, batches: list[Any]
) -> None:
    drawn = {"temperature": 1.2, "seed": 3}
    asked = [
        Asked(shop, "two", "Hi", n=3, **drawn),
        Asked(shop, "two", "Hi", n=2),
        Asked(shop, "two", "Hi", max_tokens=3, **drawn),
    ]
    for each in asked:
        engine.submit(each.job)
    engine.start()
    short = asked[2].wait()
    assert [len(batch) for batch in batches] == [4]
    alone = Asked(shop, "two", "Hi", max_tokens=3, **drawn)
    asked[1].wait()
    assert [len(batch) for batch in batches] == [4, 2]
    engine.close()
    with alone.job.model.speaking():
        decode(shop.base, alone.job.turns)
    assert short == alone.wait()


def test_a_short_reply_does_not_wait_for_a_long_one(shop: Shop, engine: Engine) -> None:
    long, short = (
        Asked(shop, "one", "Long", max_tokens=900),
        Asked(shop, "one", "Short", max_tokens=2),
    )
    engine.submit(long.job)
    engine.submit(short.job)
    engine.start()
    short.wait()
    assert len(long.job.turns[0].ids) < 900
    long.job.cancel()


def test_who_comes_later_joins_the_batch_that_runs(
    shop: Shop, engine: Engine, batches: list[Any]
) -> None:
    """But not before another who has waited longer."""
    long = Asked(shop, "one", "Long", max_tokens=900)
    engine.submit(long.job)
    engine.start()
    assert isinstance(long.told.get(timeout=60), Piece)
    short = Asked(shop, "one", "Short", max_tokens=2)
    engine.submit(short.job)
    said = short.wait()
    assert long.job.turns[0].open
    other, behind = Asked(shop, "two", "Other"), Asked(shop, "one", "Behind")
    engine.submit(other.job)
    engine.submit(behind.job)
    alone = Asked(shop, "one", "Short", max_tokens=2)
    time.sleep(0.05)
    assert behind.told.empty()
    long.job.cancel()
    other.wait()
    behind.wait()
    assert [len(batch) for batch in batches] == [1, 1, 1]
    engine.close()
    with alone.job.model.speaking():
        decode(shop.base, alone.job.turns)
    assert said == alone.wait()


def test_nobody_waits_and_nothing_is_computed(
    shop: Shop, engine: Engine, batches: list[Any]
) -> None:
    gone, waiting = Asked(shop, "one", "Gone"), Asked(shop, "one", "Here")
    engine.submit(gone.job)
    engine.submit(waiting.job)
    gone.job.cancel()
    engine.start()
    waiting.wait()
    assert [len(batch) for batch in batches] == [1]
    assert gone.job.turns[0].ids == []
    assert gone.told.empty()


def test_a_job_that_is_given_up_leaves_its_batch(shop: Shop, engine: Engine) -> None:
    gone, waiting = (Asked(shop, "one", text, max_tokens=900) for text in ("Gone", "Here"))
    for each in (gone, waiting):
        engine.submit(each.job)
    engine.start()
    assert isinstance(gone.told.get(timeout=60), Piece)
    gone.job.cancel()
    length = len(gone.job.turns[0].ids)
    waiting.told.get(timeout=60)
    for _ in range(20):
        waiting.told.get(timeout=60)
    assert len(gone.job.turns[0].ids) <= length + 1
    waiting.job.cancel()


def test_a_crash_is_told_and_the_next_job_is_answered(
    shop: Shop, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(base: Any, turns: Any, **more: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "decode", crash)
    first = Asked(shop, "one", "Hi")
    engine.submit(first.job)
    engine.start()
    event = first.told.get(timeout=60)
    assert isinstance(event, Failed)
    assert isinstance(event.error, ZeroDivisionError)
    monkeypatch.setattr(module, "decode", decode)
    second = Asked(shop, "one", "Hi")
    engine.submit(second.job)
    assert second.wait()


def test_too_many_are_sent_away(
    shop: Shop, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    engine.submit(Asked(shop, "one", "Hi").job)
    with pytest.raises(RequestError, match="too many") as error:
        engine.submit(Asked(shop, "one", "Hi").job)
    assert error.value.status == 429


def test_closing_gives_up_what_runs_and_what_waits(shop: Shop) -> None:
    engine = Engine(shop.base, nullcontext, batch=1)
    asked = [Asked(shop, "one", text, max_tokens=900) for text in ("runs", "waits")]
    for each in asked:
        engine.submit(each.job)
    engine.start()
    assert isinstance(asked[0].told.get(timeout=60), Piece)
    engine.close()
    assert not any(thread.name == "model" for thread in threading.enumerate())
    assert len(asked[0].job.turns[0].ids) < 900
    for each in asked:
        while not isinstance(event := each.told.get(timeout=60), Failed):
            pass
        assert isinstance(event.error, RequestError)
        assert event.error.status == 503
    with pytest.raises(RequestError, match="being stopped"):
        engine.submit(Asked(shop, "one", "late").job)
