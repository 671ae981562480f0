"""A configuration's identity: the hash of what decides a result, and how two of them differ."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from graftlab.tracking.identity import BUDGETS, decisive, differences, flatten, identity


def sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


CONFIG: dict[str, Any] = {"lr": 1e-4, "lora": {"rank": 8}, "model": {"hub": "ö", "kept": [1, None]}}


def test_it_is_a_hash_of_sorted_json() -> None:
    """Pinned: a run folder is found again by it, whatever version wrote it."""
    text = '{"lora": {"rank": 8}, "lr": 0.0001, "model": {"hub": "ö", "kept": [1, null]}}'
    assert identity(CONFIG) == sha(text)
    assert identity(dict(reversed(CONFIG.items()))) == sha(text)
    assert identity({"lr": Path("x")}) == sha('{"lr": "x"}')


@pytest.mark.parametrize(
    "key",
    [
        "run_dir",
        "resume",
        "logger",
        "max_minutes",
        "name",
        "budget",
        "machine",
        "sweep",
        "launcher",
    ],
)
def test_what_decides_no_result_is_left_out(key: str) -> None:
    assert key in BUDGETS
    assert identity({**CONFIG, key: "anything"}) == identity(CONFIG)
    assert identity({**CONFIG, "lora": {"rank": 8, key: "anything"}}) != identity(CONFIG)


def test_whether_code_is_trusted_is_no_part_of_a_run() -> None:
    trusting = {**CONFIG, "model": {**CONFIG["model"], "trust_remote_code": True}}
    assert identity(trusting) == identity(CONFIG)
    assert decisive(trusting) == CONFIG
    assert identity({**CONFIG, "trust_remote_code": True}) != identity(CONFIG)
    assert identity({"model": "x"}) == sha('{"model": "x"}')


def test_where_codes_are_read_from_is_no_part_of_a_run() -> None:
    stored = {"choice": "nf4", "double": False}
    plain, kept = ({"model": {"quantization": {**stored, "cache": on}}} for on in (False, True))
    assert identity(kept) == identity(plain)
    assert decisive(kept) == {"model": {"quantization": stored}}


def test_paths_count_unless_what_they_hold_is_compared(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).touch()
    one, two = ({"data": {"train": f"{name}.jsonl"}, "lr": 1} for name in ("one", "two"))
    assert identity(one) == sha('{"data": {"train": "one.jsonl"}, "lr": 1}') != identity(two)
    assert identity(one) == identity({**one, "data": {"train": str(tmp_path / "one.jsonl")}})
    assert identity(one, paths=False) == identity(two, paths=False)
    assert identity(one, paths=False) == sha('{"data": {"train": ""}, "lr": 1}')


def test_differences_are_told_by_their_keys() -> None:
    other = {"lr": 1e-4, "lora": {"rank": 4, "from_run": "x"}, "model": {"kept": []}, "date": "y"}
    assert differences(CONFIG, other) == [
        "lora.rank: 8 -> 4",
        'model.hub: "ö" -> unset',
        "model.kept: [1, null] -> []",
        'lora.from: unset -> "x"',
    ]
    assert differences(CONFIG, dict(CONFIG)) == []


def test_flat_keys() -> None:
    nested = {"a": {"b": {"c": 1}, "d": {}}, "e": None, "f": [{"g": 1}]}
    assert flatten(nested) == {"a.b.c": 1, "e": None, "f": [{"g": 1}]}
    assert flatten({"b": 1}, under="a.") == {"a.b": 1}
    assert flatten({}) == {}
