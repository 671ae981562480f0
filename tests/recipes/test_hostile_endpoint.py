"""Endpoints that quote the key, tell nonsense or ask for hours; addresses that hold a secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graftlab.errors import ConfigError, GraftlabError
from graftlab.recipes.rewriters.base import Miss
from graftlab.recipes.rewriters.http import HttpClient, HttpRewriter
from graftlab.recipes.rewriters.secret import IN_MESSAGES, MASK, hidden
from recipe_endpoint import Desk, Fault, completion, endpoint, says, status

KEY = "sk-proj-Zq7 Lm2+Xw/9RtVb4-tail"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("MY_KEY", KEY)
    with endpoint() as running:
        yield running


def parts(text: str, length: int) -> list[str]:
    """What of the key stands in a text."""
    found = (KEY[at : at + length] for at in range(len(KEY) - length + 1))
    return [part for part in found if part in text]


@pytest.mark.parametrize(
    "fault",
    [
        status(500, f"Bearer {KEY}"),
        status(400, f"incorrect key {KEY[:9]}******{KEY[-4:]}"),
        status(429, f"{' ' * (2000 - 10)}{KEY}", Retry_After="0"),  # cut there, it was no key
        status(502, f"{KEY[:20]}\n{KEY[20:]}"),
        says(f"{'.' * 110}{KEY}"),
        says(f"{KEY}"),
    ],
)
def test_an_error_that_quotes_the_key(desk: Desk, tmp_path: Path, fault: Fault) -> None:
    desk.always = fault
    spec = HttpRewriter(url=desk.url, model="m", key_env="MY_KEY", cache=str(tmp_path), retries=0)
    (found,) = HttpClient(spec).rewrite(["P."])
    assert isinstance(found, Miss)
    assert not parts(found.detail, IN_MESSAGES)
    assert desk.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_an_answer_that_quotes_the_key(desk: Desk, tmp_path: Path) -> None:
    desk.always = says(completion(f"You said {KEY[:-3]}, and a tail.", finish=KEY))
    spec = HttpRewriter(url=desk.url, model="m", key_env="MY_KEY", cache=str(tmp_path))
    assert HttpClient(spec).rewrite(["P."]) == [f"You said {MASK}, and a tail."]
    kept = "".join(file.read_text() for file in tmp_path.rglob("*.jsonl"))
    assert MASK in kept
    assert not parts(kept, 8)


def test_what_is_no_part_stays() -> None:
    assert hidden("nothing of it", KEY, 4) == "nothing of it"
    assert hidden("none", "none of yours", 8) == "none"
    assert hidden("abc", None, 4) == hidden("abc", "abc", 4) == "abc"
    assert hidden("", KEY, 4) == ""


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://me:s3cret@host/v1", "me:s3cret@host/v1", "http://:s3cret@[::1/v1"),
        *("https://host/v1?key=s3cret", "https://host/v1#s3cret", "http://[bad/v1"),
        *("http://host:abc/v1", "http://host:99999/v1", "http://ho\nst/v1", "http://ho st/v1"),
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^rewriter\.url") as caught:
        HttpRewriter(model="m", url=url)
    assert "s3cret" not in str(caught.value)


def test_a_key_in_place_of_its_variable() -> None:
    with pytest.raises(ConfigError, match="must be the name of an environment") as caught:
        HttpRewriter(model="m", key_env=KEY)
    assert not parts(str(caught.value), IN_MESSAGES)


@pytest.mark.parametrize("ending", ["\n", "ß", "\x00"])
def test_a_key_that_no_header_holds(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"MY_KEY": KEY + ending})
    with pytest.raises(ConfigError, match=r"^\$MY_KEY holds a line break or another") as caught:
        HttpRewriter(model="m", key_env="MY_KEY").check()
    assert not parts(str(caught.value), IN_MESSAGES)


def test_counts_that_cannot_be_are_none(desk: Desk, tmp_path: Path) -> None:
    desk.always = says(completion("Plainly.", usage=(10**400, 10**20)))
    spec = HttpRewriter(url=desk.url, model="m", cache=str(tmp_path), answer_price=1.0)
    asking = HttpClient(spec)
    assert asking.rewrite(["P."]) == ["Plainly."]
    assert 0 < asking.budget.spent < 1e-3, "estimated, as where an endpoint keeps no count"


def test_a_content_in_parts_is_no_empty_answer(desk: Desk, tmp_path: Path) -> None:
    desk.always = says(completion([{"type": "text", "text": "Plainly."}]))
    spec = HttpRewriter(url=desk.url, model="m", cache=str(tmp_path), retries=0)
    (found,) = HttpClient(spec).rewrite(["P."])
    assert isinstance(found, Miss)
    assert "no chat completion" in found.detail


def test_nobody_waits_for_a_year(desk: Desk, tmp_path: Path) -> None:
    desk.always = status(429, "come again", Retry_After="31536000")
    spec = HttpRewriter(url=desk.url, model="m", cache=str(tmp_path))
    with pytest.raises(GraftlabError, match=r"HTTP 429 come again, and to come back in 31,536,000"):
        HttpClient(spec).rewrite(["P."])
    assert len(desk.requests) == 1
