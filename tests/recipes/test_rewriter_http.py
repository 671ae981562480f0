"""The HTTP rewriter: every fault of an endpoint, the cache, the budget, a secret key."""

from __future__ import annotations

import email.utils
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graftlab.errors import ConfigError
from graftlab.recipes.rewriters.answer_cache import AnswerCache, CachedAnswer
from graftlab.recipes.rewriters.base import Miss, RewriterError
from graftlab.recipes.rewriters.http import GIVE_UP_AFTER, HttpClient, HttpRewriter
from graftlab.registry import dump
from recipe_endpoint import Desk, completion, endpoint, hang, says, status

KEY = "sk-test-0123456789-secret"


@pytest.fixture
def desk() -> Iterator[Desk]:
    with endpoint() as running:
        yield running


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWRITER_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-host")


def client(desk: Desk, folder: Path, **settings: Any) -> HttpClient:
    """One that loses no time."""
    quick = {"backoff": 0.01, "timeout": 5.0, "retries": 3, "concurrency": 1}
    quick |= {"key_env": "REWRITER_API_KEY"}
    spec = HttpRewriter(url=desk.url, model="m", cache=str(folder), **(quick | settings))
    return HttpClient(spec)


def test_rewrites_come_back_in_order_and_ask_with_the_frame(desk: Desk, tmp_path: Path) -> None:
    texts = [f"Passage {'x' * n}." for n in range(12)]
    desk.delay = 0.02
    found = client(desk, tmp_path, concurrency=4).rewrite(texts)
    lengths = [int(str(text).split()[1]) for text in found]
    assert lengths == list(range(lengths[0], lengths[0] + 12))
    assert 2 <= desk.most_at_once <= 4
    sent = desk.requests[0]
    assert sent["model"] == "m"
    assert [turn["role"] for turn in sent["messages"]] == ["system", "user"]
    assert "- Use short sentences" in sent["messages"][1]["content"]
    assert desk.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_openais_key_goes_to_https_hosts_alone(desk: Desk, tmp_path: Path) -> None:
    client(desk, tmp_path, key_env="OPENAI_API_KEY").rewrite(["A text."])
    assert "Authorization" not in desk.headers[0]
    keyed = HttpClient(
        HttpRewriter(url="https://api.openai.com/v1", model="m", cache=str(tmp_path))
    )
    assert keyed.endpoint._key == "sk-of-another-host"
    ollama = HttpClient(HttpRewriter(model="m", cache=str(tmp_path)))
    assert ollama.endpoint._key is None


@pytest.mark.parametrize(
    "fault",
    [
        status(429, "slow down", Retry_After="0"),
        status(500, "oops"),
        status(503),
        says("<html>not json"),
        says(""),
        says('{"choices": []}'),
        says('{"choices": [{"message": {}}]}'),
        says("[1, 2]"),
        says(completion("")),
        says(completion(None)),
        says(completion("<think>hmm</think>")),
        says("\xff\xfe"),
    ],
)
def test_a_fault_is_tried_again(desk: Desk, tmp_path: Path, fault: Any) -> None:
    desk.faults = [fault, fault]
    found = client(desk, tmp_path).rewrite(["A passage."])
    assert str(found[0]).startswith("Plainly:")
    assert len(desk.requests) == 3


@pytest.mark.parametrize("fault", [status(500), says("{}"), status(429, "", Retry_After="0")])
def test_a_lasting_fault_is_a_miss_with_its_reason(desk: Desk, tmp_path: Path, fault: Any) -> None:
    desk.faults = [fault] * 4
    found = client(desk, tmp_path).rewrite(["A passage.", "Another."])
    assert isinstance(found[0], Miss)
    assert found[0].reason == "no answer"
    assert "4 tries" in found[0].detail
    assert isinstance(found[1], str)
    assert len(desk.requests) == 5


def test_silence_ends_at_the_timeout(desk: Desk, tmp_path: Path) -> None:
    desk.faults = [hang, hang]
    started = time.monotonic()
    found = client(desk, tmp_path, timeout=0.2, retries=1).rewrite(["A passage."])
    assert time.monotonic() - started < 5
    assert isinstance(found[0], Miss)
    assert "no answer within 0.2 s" in found[0].detail


def test_retry_after_is_waited_for_by_everybody(desk: Desk, tmp_path: Path) -> None:
    desk.faults = [status(429, "", Retry_After="1")]
    desk.delay = 0.05
    found = client(desk, tmp_path, concurrency=3).rewrite([f"P{n}." for n in range(6)])
    assert all(isinstance(text, str) for text in found)
    start = desk.times[0]
    between = [t - start for t in desk.times if 0.3 < t - start < 0.95]
    assert between == []
    assert max(desk.times) - start > 0.95


def test_retry_after_may_be_a_date(desk: Desk, tmp_path: Path) -> None:
    due = email.utils.formatdate(time.time() + 2, usegmt=True)
    desk.faults = [status(503, "", Retry_After=due), status(503, "", Retry_After="soon")]
    assert isinstance(client(desk, tmp_path).rewrite(["P."])[0], str)
    assert desk.times[1] - desk.times[0] > 0.7
    assert desk.times[2] - desk.times[1] < 0.7


def test_pauses_double(desk: Desk, tmp_path: Path) -> None:
    desk.faults = [status(500)] * 3
    client(desk, tmp_path, backoff=0.1).rewrite(["P."])
    gaps = [b - a for a, b in zip(desk.times, desk.times[1:], strict=False)]
    assert [round(gap, 1) >= wanted for gap, wanted in zip(gaps, (0.1, 0.2, 0.4), strict=True)]
    assert gaps[2] > gaps[1] > gaps[0]


@pytest.mark.parametrize(("code", "advice"), [(401, "key_env"), (403, "key_env"), (404, "url")])
def test_what_fails_for_all_stops_at_once(
    desk: Desk, tmp_path: Path, code: int, advice: str
) -> None:
    desk.always = status(code, f"bad key {KEY}")
    with pytest.raises(RewriterError, match=advice) as caught:
        client(desk, tmp_path).rewrite([f"P{n}." for n in range(50)])
    assert KEY not in str(caught.value)
    assert "bad key ***" in str(caught.value)
    assert len(desk.requests) < 5


def test_a_redirection_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    with endpoint() as elsewhere:
        desk.always = status(307, "", Location=f"{elsewhere.url}/chat/completions")
        with pytest.raises(RewriterError, match="307"):
            client(desk, tmp_path).rewrite(["P."])
        assert elsewhere.requests == []


def test_one_text_that_cannot_be_asked_is_a_miss(desk: Desk, tmp_path: Path) -> None:
    desk.faults = [status(400, "too long")]
    found = client(desk, tmp_path).rewrite(["P.", "Q."])
    assert found[0] == Miss("refused by the endpoint", "HTTP 400 too long")
    assert isinstance(found[1], str)
    assert len(desk.requests) == 2


def test_a_dead_endpoint_is_given_up(desk: Desk, tmp_path: Path) -> None:
    built = client(desk, tmp_path, retries=0)
    desk.always = status(500)
    with pytest.raises(RewriterError, match=f"{GIVE_UP_AFTER} texts in a row"):
        built.rewrite([f"P{n}." for n in range(50)])
    assert GIVE_UP_AFTER <= len(desk.requests) <= GIVE_UP_AFTER + 1  # one was under way


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with endpoint() as gone:
        pass
    found = client(gone, tmp_path, retries=1).rewrite(["P."])
    assert isinstance(found[0], Miss)
    assert "no connection" in found[0].detail


def test_an_answer_cut_off_is_not_used_and_not_asked_for_again(desk: Desk, tmp_path: Path) -> None:
    desk.faults = [says(completion("It stood at the", "length"))]
    for _ in range(2):
        found = client(desk, tmp_path).rewrite(["P."])
        assert found == [Miss("answer cut off", "at rewriter.max_tokens")]
    assert len(desk.requests) == 1


def test_nothing_is_asked_twice(desk: Desk, tmp_path: Path) -> None:
    texts = ["Same.", "Other.", "Same."]
    first = client(desk, tmp_path, concurrency=3).rewrite(texts)
    assert first[0] == first[2]
    assert len(desk.requests) == 2
    assert client(desk, tmp_path).rewrite(texts) == first
    assert len(desk.requests) == 2
    client(desk, tmp_path, temperature=0.9).rewrite(["Same."])
    assert len(desk.requests) == 3


CHILD = """
import sys
from graftlab.recipes.rewriters.http import HttpRewriter
url, cache = sys.argv[1:]
rewriter = HttpRewriter(url=url, model="m", cache=cache, concurrency=2, timeout=60)
with rewriter.opened() as rewrite:
    print(len(rewrite([f"Passage number {n}." for n in range(20)])), flush=True)
"""


def test_killed_and_continued_nothing_is_paid_twice(desk: Desk, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, desk.url, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    # Nine answers come, then the endpoint falls silent until the process is killed.
    desk.silent_after = 9
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while len(desk.requests) < 11 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
    finally:
        child.kill()
        child.communicate()
    assert sum(desk.paid.values()) == 9
    desk.silent_after = None
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "20", done.stderr
    assert len(desk.paid) == 20
    assert set(desk.paid.values()) == {1}


def test_half_a_line_in_the_cache_is_asked_again(desk: Desk, tmp_path: Path) -> None:
    built = client(desk, tmp_path)
    whole = built.rewrite(["One.", "Two."])
    data = built.answers.path.read_bytes()
    built.answers.path.write_bytes(data[:-20])
    again = client(desk, tmp_path)
    assert again.rewrite(["One.", "Two."]) == whole
    assert len(desk.requests) == 3
    assert client(desk, tmp_path).rewrite(["Two.", "One."]) == whole[::-1]
    assert len(desk.requests) == 3


def test_answers_keep_any_text(tmp_path: Path) -> None:
    said = CachedAnswer('ü\n\u2028 \\ " 漢字', "stop", (1, 2))
    AnswerCache(tmp_path / "a.jsonl").put("k", said)
    assert AnswerCache(tmp_path / "a.jsonl").get("k") == said


def test_the_cap_is_never_passed_and_the_run_goes_on_with_a_higher_one(
    desk: Desk, tmp_path: Path
) -> None:
    # Each answer bills 100 + 50 tokens: 0.2 of the currency.
    prices = {"prompt_price": 1000.0, "answer_price": 2000.0, "max_tokens": 60}
    texts = [f"P{n}." for n in range(10)]
    poor = client(desk, tmp_path, max_cost=1.1, concurrency=3, **prices)
    with pytest.raises(RewriterError, match=r"max_cost=1\.1 .*nothing is paid twice"):
        poor.rewrite(texts)
    assert 0 < len(desk.requests) * 0.2 <= 1.1
    assert poor.budget.spent == pytest.approx(len(desk.requests) * 0.2)
    rich = client(desk, tmp_path, max_cost=50, **prices)
    assert all(isinstance(text, str) for text in rich.rewrite(texts))
    assert set(desk.paid.values()) == {1}
    assert rich.budget.spent == pytest.approx(2.0)  # what the first run paid is counted in


def test_nonsense_that_may_have_been_billed_counts_against_the_cap(
    desk: Desk, tmp_path: Path
) -> None:
    desk.always = says("{}")
    built = client(desk, tmp_path, answer_price=1e6, max_tokens=1, max_cost=2.5, retries=9)
    with pytest.raises(RewriterError, match="max_cost"):
        built.rewrite(["P."])
    assert len(desk.requests) == 2


def test_the_key_is_written_nowhere(
    desk: Desk, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    desk.faults = [status(500, f"your key {KEY} is fine"), says(f"echo {KEY}")]
    built = client(desk, tmp_path, retries=1)
    found = built.rewrite(["P.", "Q."])
    assert isinstance(found[0], Miss)
    seen = capfd.readouterr()
    told = [repr(found), repr(built.spec), repr(built.endpoint), json.dumps(dump(built.spec))]
    told += [seen.out, seen.err, *(p.read_text() for p in tmp_path.rglob("*") if p.is_file())]
    assert KEY not in "".join(told)
    assert "***" in repr(found)


def test_requests_leave_the_log_alone(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client(desk, tmp_path).rewrite(["P."])
    assert len(desk.requests) == 1
    assert caplog.text == ""


def test_no_key_no_header(desk: Desk, tmp_path: Path) -> None:
    client(desk, tmp_path, key_env=None).rewrite(["P."])
    client(desk, tmp_path, key_env="NOT_SET_ANYWHERE").rewrite(["Q."])
    assert all("Authorization" not in headers for headers in desk.headers)


@pytest.mark.parametrize(
    ("wrong", "says_so"),
    [
        ({"url": "127.0.0.1/v1"}, "rewriter.url"),
        ({"url": "https://me:secret@host/v1"}, "key_env"),
        ({"url": "https://host/v1?key=secret"}, "key_env"),
        ({"concurrency": 0}, "rewriter.concurrency"),
        ({"timeout": 0}, "rewriter.timeout"),
        ({"max_cost": 5.0}, "prompt_price"),
        ({"temperature": -1}, "rewriter.temperature"),
    ],
)
def test_wrong_values_are_refused_by_key(wrong: dict[str, Any], says_so: str) -> None:
    with pytest.raises(ConfigError, match=says_so) as caught:
        HttpRewriter(model="m", **wrong)
    assert "secret" not in str(caught.value)


def test_a_model_and_a_frame_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rewriter\.model"), HttpRewriter().opened():
        pass
    lost = HttpRewriter(model="m", prompt="nowhere", cache=str(tmp_path))
    with pytest.raises(ConfigError, match=r"rewriter\.prompt: frame=nowhere"), lost.opened():
        pass
