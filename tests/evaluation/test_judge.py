"""A judge is asked in both orders: an honest one is heard, one that prefers a place is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation_results import made_results
from graftlab.errors import ConfigError, GraftlabError
from graftlab.evaluation import endpoint as speaking
from graftlab.evaluation.judges.http import HttpJudge
from graftlab.evaluation.judges.local import LocalJudge
from graftlab.evaluation.judging import chosen_in, judged
from graftlab.evaluation.page import page
from graftlab.evaluation.preferences import Preference
from graftlab.evaluation.results import Results
from graftlab.evaluation.spec import EvaluateSpec
from graftlab.verbs.evaluate import run
from recipe_endpoint import Desk, Fault, completion, endpoint, says, status

Asked = Callable[..., EvaluateSpec]
KEY = "sk-secret-of-the-judge"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(speaking, "BACKOFF", 0.01)
    with endpoint() as found:
        yield found


def judging(choose: Callable[[str, str], str]) -> Fault:
    """Answers by both replies, as they were shown."""

    def fault(handler: Any) -> None:
        asked = handler.server.desk.requests[-1]["messages"][-1]["content"]
        says(completion(choose(*(reply(asked, number) for number in (1, 2)))))(handler)

    return fault


def reply(asked: str, number: int) -> str:
    return asked.split(f"[REPLY {number}]\n")[1].split(f"\n[END OF REPLY {number}]")[0]


def honest(one: str, two: str) -> str:
    right = [text.startswith("Answer") for text in (one, two)]
    return f"Because.\nVERDICT {0 if right[0] == right[1] else 1 + right[1]}"


def pairs(count: int = 16) -> Results:
    """The second model is right on even prompts; on odd ones both are wrong, each in its way."""
    found = made_results(count)
    for place in range(1, count, 2):
        said = found.replies["run<1>"][place][0]
        found.replies["run<1>"][place] = (type(said)(f"Other {place}", 5, True, 0.1),)
    return found


def ask(desk: Desk, found: Results, cache: Path, **keys: Any) -> tuple[Preference, str | None]:
    spec = HttpJudge(**{"url": desk.url, "model": "judge", "concurrency": 1, "retries": 1} | keys)
    spec.check()
    seen = judged(spec, found, seed=0, cache=cache, console=None)  # type: ignore[arg-type]
    found.preferences = [seen[0]]
    return seen


def word(found: Results) -> str | None:
    found.__dict__.pop("verdicts", None)
    (one,) = [one for one in found.as_json()["comparisons"] if one["metric"] == "judge"]
    return one["verdict"]  # type: ignore[no-any-return]


def test_an_honest_judge_is_heard(desk: Desk, tmp_path: Path) -> None:
    desk.always = judging(honest)
    found = pairs()
    seen, failed = ask(desk, found, tmp_path)
    assert failed is None
    assert seen.pairs["base", "run<1>"] == [1.0, 0.0] * 8
    assert (seen.told["agreement"], seen.told["first_shown"]) == (1, 0.5)
    assert seen.worthless is None
    assert word(found) == "better"
    assert len(desk.requests) == 32, "each pair in both orders"
    text = desk.requests[0]["messages"][-1]["content"]
    assert "[REFERENCE]\nAnswer" in text
    assert "run<1>" not in text
    assert desk.requests[0]["messages"][0]["role"] == "system"
    assert "judge: run&lt;1&gt;, not base" in page(found)
    assert "both agree on 100%" in page(found)
    ask(desk, found, tmp_path)
    assert len(desk.requests) == 32, "nothing is asked twice"
    ask(desk, found, tmp_path, reference=False)
    assert len(desk.requests) == 64
    assert "[REFERENCE]" not in desk.requests[-1]["messages"][-1]["content"]


def test_a_judge_that_prefers_a_place_is_worthless(desk: Desk, tmp_path: Path) -> None:
    """Even if it is honest now and then, and the other way round would be as bad."""
    calls = iter(range(1000))
    desk.always = judging(lambda *both: honest(*both) if next(calls) % 9 == 0 else "VERDICT: 1")
    found = pairs()
    seen, _ = ask(desk, found, tmp_path)
    assert seen.told["first_shown"] > 0.85
    assert seen.worthless is not None
    assert "it named the same place 1" in seen.worthless
    assert word(found) is None, "nobody is called better by it"
    assert "The judge is worthless" in page(found)
    assert found.as_json()["preferences"][0]["worthless"] == seen.worthless


def test_garbage_is_no_verdict(desk: Desk, tmp_path: Path) -> None:
    answers = iter(["Both are fine, I think."] * 7 + ["VERDICT 1"] * 99)
    found = pairs(8)
    desk.always = judging(lambda *both: next(answers))
    seen, _ = ask(desk, found, tmp_path)
    assert (seen.told["unreadable"], seen.told["pairs_judged"]) == (7, 4)
    assert list(seen.pairs["base", "run<1>"]).count(None) == 4
    desk.always = says(completion("As an AI, I cannot judge."))
    found = pairs(8)
    seen, _ = ask(desk, found, tmp_path / "other")
    assert seen.worthless == "The judge is worthless: its answers hold no verdicts."
    assert set(seen.pairs["base", "run<1>"]) == {None}
    found.as_json()
    desk.always = says(completion("VERDICT 1", finish="length"))
    assert ask(desk, pairs(4), tmp_path / "third")[0].told["unreadable"] == 8
    desk.always = says("<html>no completion</html>")
    _, failed = ask(desk, pairs(4), tmp_path / "fourth")
    assert failed is not None
    assert "an answer that is no chat completion" in failed


def test_one_that_dies_midway_loses_nothing(
    desk: Desk, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    desk.faults = [says(completion("VERDICT 1"))] * 3
    desk.always = status(500, f"out of order, {KEY}")
    judge = HttpJudge(url=desk.url, model="judge", concurrency=1, retries=1, key_env="JUDGE_KEY")
    spec = asked(judge=judge, out=str(tmp_path / "out"), adapters=asked().adapters[:1])
    with pytest.raises(GraftlabError) as error:
        run(spec)
    assert "3 of " in str(error.value)
    assert "the same command asks only for the others" in str(error.value)
    assert "HTTP 500" in str(error.value)
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    assert told["unfinished"].startswith("judge: ")
    assert told["preferences"][0]["pairs_judged"] == 1
    assert told["models"]["one"]["metrics"]["style"]["avg_words"]["mean"] > 0
    before = len(desk.requests)
    desk.always = says(completion("VERDICT 2"))
    found = run(spec)
    of = found.preferences[0].told["pairs_of"]
    assert len(desk.requests) - before == 2 * of - 3
    assert found.preferences[0].told["pairs_judged"] == of
    assert {headers["Authorization"] for headers in desk.headers} == {f"Bearer {KEY}"}
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            assert KEY.encode() not in (Path(folder) / name).read_bytes(), name
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ({"max_requests": 5}, 5),
        ({"max_total_tokens": 2000, "max_tokens": 100}, 11),
        ({"max_cost": 0.01, "prompt_price": 10, "answer_price": 20, "max_tokens": 10}, 5),
    ],
)
def test_no_request_passes_a_limit(
    desk: Desk, tmp_path: Path, limit: dict[str, Any], most: int
) -> None:
    """Each answer costs 150 tokens, or 0.002 at those prices; twelve pairs are 24 requests."""
    desk.always = judging(honest)
    seen, failed = ask(desk, pairs(12), tmp_path, **limit)
    assert failed is not None
    key = next(iter(limit))
    assert f"The next request could pass judge.{key}={limit[key]:g}" in failed
    assert 2 <= len(desk.requests) <= most
    assert 0 < seen.told["pairs_judged"] < 12
    before = len(desk.requests)
    tokens = {name: value for name, value in limit.items() if name == "max_tokens"}
    seen, failed = ask(desk, pairs(12), tmp_path, **tokens)
    assert failed is None
    assert len(desk.requests) == 24, f"{before} were paid before"


def test_what_counts_as_a_verdict() -> None:
    for text, choice in {
        "It is right.\nVERDICT 2": 2, "VERDICT: 1": 1, "**Verdict:** [[0]]": 0, "verdict: tie": 0,
        "VERDICT 1? No.\nVERDICT 2": 2, " 1\n": 1, "[[2]]": 2, "Verdict: reply 2": 2,
        "1 is better than 2": None, "VERDICT 3": None, "": None, "The verdict is 1.": 1,
    }.items():  # fmt: skip
        assert chosen_in(text) == choice, text


def test_keys_are_checked(asked: Asked) -> None:
    for cls, keys, said in (
        (HttpJudge, {}, "judge.model is not set"),
        (HttpJudge, {"model": "m", "rubric": "nobody"}, "judge.rubric: frame=nobody"),
        (LocalJudge, {}, r"needs judge\.model=DIR"),
        (LocalJudge, {"model": "nowhere"}, "there is no such folder"),
    ):
        with pytest.raises(ConfigError, match=said):
            cls(**keys).check()
    with pytest.raises(ConfigError, match="needs prices to count by"):
        HttpJudge(max_cost=1.0)
    with pytest.raises(ConfigError, match="must hold no user, password or query"):
        HttpJudge(url="https://me:secret@host/v1")
    with pytest.raises(ConfigError, match="there is one"):
        asked(adapters=[], endpoint="http://127.0.0.1:1/v1", endpoint_model="m", judge=HttpJudge())


def test_a_local_judge(asked: Asked, adapters: list[Path], tmp_path: Path) -> None:
    """A model that was taught nothing says nothing: it is asked, and told to be worthless."""
    judge = LocalJudge(adapter=str(adapters[1]), max_tokens=6)
    found = run(asked(judge=judge, adapters=[str(adapters[0])], limit=2, out=str(tmp_path / "out")))
    (seen,) = found.preferences
    assert seen.told["path"] == str(adapters[1])
    assert seen.told["unreadable"] == 2 * seen.told["pairs_of"] > 0
    assert seen.worthless is not None
    assert found.settings["judge"]["max_tokens"] == 6
