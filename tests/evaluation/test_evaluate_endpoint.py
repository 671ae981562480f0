"""A model behind an endpoint, judged as the others are; what it said before it died is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graftlab.errors import ConfigError, GraftlabError
from graftlab.evaluation import endpoint as speaking
from graftlab.evaluation.metrics.chosen import Metrics
from graftlab.evaluation.metrics.style import Style
from graftlab.evaluation.spec import EvaluateSpec
from graftlab.generation.sampling import Generation
from graftlab.verbs.evaluate import run
from recipe_endpoint import Desk, completion, endpoint, says, status

Asked = Callable[..., EvaluateSpec]


@pytest.fixture
def elsewhere(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EvaluateSpec]:
    monkeypatch.setattr(speaking, "BACKOFF", 0.01)

    def spec(desk: Desk, **changes: Any) -> EvaluateSpec:
        usual = {"adapters": [], "endpoint": desk.url, "endpoint_model": "served", "retries": 1}
        return asked(**{**usual, "metrics": Metrics(chosen={"style": Style()}), **changes})

    return spec


def test_an_endpoint_beside_an_adapter(elsewhere: Asked, asked: Asked) -> None:
    with endpoint() as desk:
        found = run(elsewhere(desk, adapters=asked().adapters[:1]))
        assert list(found.replies) == ["base", "one", "served"]
        texts = [said.text for (said,) in found.replies["served"]]
        assert texts == [f"Plainly: {n} letters." for n in (20, 20, 8, 2, 13)]
        sent = desk.requests[0]
        assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("served", 0, 8)
        assert [turn["role"] for turn in sent["messages"]] == ["system", "user"]
        assert "Authorization" not in desk.headers[0]
        run(elsewhere(desk, adapters=asked().adapters[:1]))
        assert len(desk.requests) == 5, "nobody is asked twice"
    assert ("served", ("style", "avg_banned_hits")) in found.means


def test_what_was_answered_before_it_died_is_kept(elsewhere: Asked) -> None:
    with endpoint() as desk:
        desk.faults = [says(completion("one")), says(completion("two", usage=None))]
        desk.always = status(500, "out of order")
        with pytest.raises(GraftlabError) as error:
            run(elsewhere(desk, batch=1))
        assert "gives no answer to" in str(error.value)
        assert "HTTP 500 out of order" in str(error.value)
        assert "2 of 5 replies are kept in" in str(error.value)
        desk.always = None
        before = len(desk.requests)
        found = run(elsewhere(desk, batch=1))
        assert len(desk.requests) == before + 3
    said = [draws[0] for draws in found.replies["served"]]
    assert [one.text for one in said[:2]] == ["one", "two"]
    assert [one.num_tokens for one in said[:2]] == [50, 0]
    assert found.values("served", ("style", "avg_tokens"))[1] is None, "it did not count them"


def test_a_cache_that_is_no_folder(elsewhere: Asked, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with endpoint() as desk:
        for cache in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
            with pytest.raises(ConfigError, match=r"cannot be used: .* with cache=DIR or in"):
                run(elsewhere(desk, cache=str(cache)))
        assert not desk.requests


def test_numbers_that_no_memory_holds() -> None:
    for wrong, said in (({"draws": 10**12}, "at most 1000"), ({"limit": 10**400}, "finite")):
        with pytest.raises(ConfigError, match=said):
            EvaluateSpec(endpoint="http://h/v1", endpoint_model="m", prompts="p", **wrong)
    with pytest.raises(ConfigError, match=r"generation\.seed=.* is out of range"):
        Generation(seed=2**63)


def test_an_empty_reply_is_a_reply(elsewhere: Asked) -> None:
    with endpoint() as desk:
        desk.always = says(completion(""))
        found = run(elsewhere(desk, limit=1))
    assert found.replies["served"][0][0].text == ""


def test_what_an_endpoint_cannot_be_asked(elsewhere: Asked, asked: Asked) -> None:
    with endpoint() as desk:
        with pytest.raises(ConfigError, match="endpoint_model=one is what another of the models"):
            run(elsewhere(desk, adapters=asked().adapters, endpoint_model="one"))
        with pytest.raises(ConfigError, match="needs endpoint_model=NAME"):
            elsewhere(desk, endpoint_model=None)
        with pytest.raises(ConfigError, match=r"top_k is no part of what an endpoint"):
            elsewhere(desk, generation=Generation(temperature=1, top_k=3))
        desk.always = status(404, "no such model")
        with pytest.raises(GraftlabError, match=r"check endpoint .* and endpoint_model") as error:
            run(elsewhere(desk))
        assert "0 of 5 replies are kept" in str(error.value)
    with pytest.raises(ConfigError, match="must hold no user, password or query"):
        elsewhere(desk, endpoint="https://me:secret@host/v1")
    with pytest.raises(ConfigError, match="must begin with http"):
        elsewhere(desk, endpoint="host/v1")
