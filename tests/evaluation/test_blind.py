"""Blind pairs: nothing on the page tells who is who, and votes come back to the right models."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browser import Browser, chromium
from evaluation_results import made_results
from graftlab.errors import ConfigError, DataError
from graftlab.evaluation.blind import blind_page, read_votes
from graftlab.evaluation.page import page
from graftlab.evaluation.pairs import pairs_of
from graftlab.evaluation.replies import Said
from graftlab.evaluation.results import Results
from graftlab.evaluation.spec import EvaluateSpec
from graftlab.verbs.evaluate import run

Asked = Callable[..., EvaluateSpec]


def with_weights(count: int = 40, **weights: str) -> Results:
    """Two models with weights of their own: on every fifth prompt both say the same, of the others
    the second is right on the even ones.
    """
    found = made_results(count)
    found.models = {
        model: {"path": f"/runs/{model}", "fingerprint": weights.get(key, key)}
        for key, model in zip("ab", found.replies, strict=True)
    }
    first, second = found.replies.values()
    for place in range(1, count, 2):
        second[place] = (replace(second[place][0], text=f"Other {place}"),)
    for place in range(0, count, 5):
        second[place] = (replace(first[place][0], num_tokens=9),)
    return found


def shown(text: str) -> list[dict[str, Any]]:
    """What the page's script reads."""
    match = re.search(r'<script type="application/json" id="pairs">(.*?)</script>', text, re.S)
    assert match is not None
    return list(json.loads(match[1]))


def votes_for(found: Results, right: str, file: Path, *, seed: int = 0) -> Path:
    """Someone who knows only what is shown, and votes for a reply that begins with `right`."""
    votes = {}
    for pair in shown(blind_page(found, seed=seed)):
        hits = [text.startswith(right) for text in pair["replies"]]
        votes[pair["id"]] = 0 if hits[0] == hits[1] else 1 + hits[1]
    file.write_text(json.dumps({"kind": "graftlab votes", "votes": votes}))
    return file


def test_the_page_does_not_tell_who_is_who() -> None:
    found = with_weights()
    text = blind_page(found, seed=0)
    pairs = shown(text)
    assert len(pairs) == 32, "replies that are the same are not asked about"
    for name in (
        "base<",
        '"base"',
        "run<1>",
        "run&lt;1",
        "\\u003c1",
        "/runs",
        "fingerprint",
        "jsonl",
    ):
        assert name not in text
    assert {key for pair in pairs for key in pair} == {"id", "turns", "reference", "replies"}
    turned = {pair.digest: pair.turned for pair in pairs_of(found, seed=0)}
    assert 6 < sum(turned.values()) < 26
    # Neither the order of the pairs nor their ids tell the sides; other weights, other sides.
    sides = [turned[pair["id"]] for pair in pairs]
    assert sides not in (sorted(sides), sorted(sides, reverse=True))
    assert [pair["turns"] for pair in pairs] != sorted(pair["turns"] for pair in pairs)
    other = {p.place: p.turned for p in pairs_of(with_weights(a="c"), seed=0)}
    assert other != {p.place: p.turned for p in pairs_of(found, seed=0)}
    assert other != {p.place: p.turned for p in pairs_of(with_weights(a="c"), seed=1)}
    assert blind_page(found, seed=0) == text


def test_votes_come_back_to_the_right_models(tmp_path: Path) -> None:
    """The second model is right on even prompts, but for those where both agree."""
    found = with_weights()
    file = votes_for(found, "Answer", tmp_path / "votes.json")
    found.preferences.append(read_votes(str(file), found, seed=0))
    (told,) = found.as_json()["preferences"]
    assert told["pairs"] == [
        {"of": "run<1>", "against": "base", "compared": 40, "won": 16, "lost": 0, "ties": 24}
    ]
    assert 0.1 < told["first_shown"] < 0.9
    (one,) = [c for c in found.as_json()["comparisons"] if c["metric"] == "votes"]
    assert (one["verdict"], one["measure"], one["method"]) == ("better", "pct_preferred", "mcnemar")
    assert one["p"] == pytest.approx(2 / 2**16), "the exact sign test"
    assert one["difference"]["mean"] == 40
    assert 0 < one["difference"]["low"] < 40 < one["difference"]["high"]
    rows = list(found.rows())
    assert rows[2]["preferences"]["votes"] == [{"of": "run<1>", "against": "base", "value": 1.0}]
    assert rows[1]["preferences"]["votes"][0]["value"] == 0
    told = page(found)
    assert "votes: run&lt;1&gt;, not base" in told
    assert "votes pct_preferred ↑" in told
    assert "Votes: 32 of 32 pairs; of 16 that chose one" in told


def test_of_several_people_the_balance_counts(tmp_path: Path) -> None:
    found = with_weights(10)
    files = [
        votes_for(found, right, tmp_path / f"{n}.json")
        for n, right in enumerate(("Answer", "Answer", "Wrong"))
    ]
    seen = read_votes([str(file) for file in files], found, seed=0)
    assert seen.pairs["base", "run<1>"] == [0, -1, 1, -1, 1, 0, 1, -1, 1, -1]
    half = read_votes([str(files[0]), str(files[2])], found, seed=0)
    assert half.pairs["base", "run<1>"] == [0, -1, 0, -1, 0, 0, 0, -1, 0, -1]
    few = json.loads(files[0].read_text())
    key = next(key for key, vote in few["votes"].items() if vote)
    files[0].write_text(json.dumps({"votes": {key: few["votes"][key]}}))
    one = read_votes(str(files[0]), found, seed=0)
    values = one.pairs["base", "run<1>"]
    assert (values.count(1), values.count(None), values.count(0)) == (1, 7, 2)


def test_files_that_hold_no_votes_are_refused(tmp_path: Path) -> None:
    found = with_weights(10)
    file = votes_for(found, "Answer", tmp_path / "votes.json")
    found.replies["base"][1] = (Said("Another reply", 3, True, 0.1),)
    with pytest.raises(DataError, match=r"1 of 8 votes are on other replies than these"):
        read_votes(str(file), found, seed=0)
    for text in ("[]", "no JSON", '{"votes": {"a": 3}}', '{"votes": {"a": true}}', '{"votes": {}}'):
        file.write_text(text)
        with pytest.raises(DataError, match="is no file that a page of blind=true saved"):
            read_votes(str(file), found, seed=0)
    with pytest.raises(ConfigError, match=r"votes=.*none.json does not exist"):
        read_votes(str(tmp_path / "none.json"), found, seed=0)


def test_pairs_that_look_alike_are_voted_on_each() -> None:
    found = with_weights(4)
    found.prompts[3] = found.prompts[1]
    for model in found.replies:
        found.replies[model][3] = found.replies[model][1]
    pairs = shown(blind_page(found, seed=0))
    assert len({pair["id"] for pair in pairs}) == len(pairs) == 3


def test_an_evaluation_with_votes(asked: Asked, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run(asked(blind=True, out=str(out), adapters=asked().adapters[:1]))
    pairs = shown((out / "blind.html").read_text())
    assert len(pairs) == sum(a != b for a, b in zip(*map(str_of, found.replies.values())))  # noqa: B905
    votes = tmp_path / "votes.json"
    votes.write_text(json.dumps({"votes": {pair["id"]: 2 for pair in pairs}}))
    again = run(asked(votes=str(votes), out=str(out), adapters=asked().adapters[:1]))
    assert not (out / "blind.html").exists()
    values = again.preferences[0].pairs["base", "one"]
    told = json.loads((out / "results.json").read_text())["preferences"][0]
    assert told["pairs"][0]["won"] == sum(value == 1 for value in values)
    assert told["votes"] == len(pairs)
    assert told["first_shown"] == 0
    with pytest.raises(ConfigError, match="give out=DIR"):
        asked(blind=True)
    with pytest.raises(ConfigError, match="there is one"):
        asked(adapters=[], endpoint="http://127.0.0.1:1/v1", endpoint_model="m", votes="x")


def str_of(draws: list[tuple[Said, ...]]) -> list[str]:
    return [said.text for (said,) in draws]


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_voting_with_the_keys_in_a_browser(tmp_path: Path) -> None:
    found = with_weights(8)
    file = tmp_path / "blind.html"
    file.write_text(blind_page(found, seed=0), encoding="utf-8")
    pairs = shown(file.read_text(encoding="utf-8"))
    assert len(pairs) == 6
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(file)

        def press(key: str) -> None:
            for kind in ("keyDown", "keyUp"):
                browser.call("Input.dispatchKeyEvent", type=kind, key=key, text=key[:1])

        def texts() -> list[str]:
            return list(
                browser.run("['one', 'two'].map(id => document.getElementById(id).textContent)")
            )

        def votes() -> dict[str, int]:
            return dict(browser.run("JSON.parse(Object.values(localStorage)[0] ?? '{}')"))

        assert texts() == pairs[0]["replies"]
        assert browser.run("document.getElementById('count').textContent") == "0 of 6"
        for key in ("1", "2", "x", "0"):
            press(key)
        assert votes() == {pairs[0]["id"]: 1, pairs[1]["id"]: 2, pairs[2]["id"]: 0}
        press("Backspace")
        assert texts() == pairs[2]["replies"]
        press("2")
        assert votes()[pairs[2]["id"]] == 2
        assert browser.run("document.getElementById('progress').value") == 3
        browser.open(file)
        assert texts() == pairs[3]["replies"], "a reload goes on where it was"
        browser.click("[data-vote='1']")
        press("0")
        press("1")
        assert browser.run("document.getElementById('done').hidden") is False
        assert browser.run("document.getElementById('pair').hidden") is True
        browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.click("#save")
        saved = tmp_path / "votes.json"
        browser.until("new Promise(done => setTimeout(() => done(true), 500))")
        seen = read_votes(str(saved), found, seed=0)
        by_id = {pair.digest: pair for pair in pairs_of(found, seed=0)}
        for pair, choice in zip(pairs, (1, 2, 2, 1, 0, 1), strict=True):
            own = by_id[pair["id"]]
            assert seen.pairs[own.models][own.place] == own.value(choice)
        assert not browser.errors
        assert [url for url in browser.requests if not url.startswith(("file:", "blob:"))] == []
    finally:
        browser.close()
