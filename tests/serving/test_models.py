"""Adapters under their names: told apart, of one base, and swapped without a trace."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from graftlab.errors import ConfigError
from graftlab.serving.models import find_models, served_names
from miniatures import miniature
from served import Shop
from trained_runs import trained_run

QUESTION = ("user", "Which year was the record made?")


def places(*names: str) -> list[Any]:
    return [SimpleNamespace(path=name, adapter=SimpleNamespace(path=Path(name))) for name in names]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/runs/a/adapter", "/runs/b/adapter"], ["a", "b"]),
        (["/runs/a/adapter", "/runs/a/adapter-final"], ["a", "adapter-final"]),
        (["/x/run/adapter", "/y/run/adapter", "/y/other"], ["x/run", "y/run", "other"]),
        (["/x/run", "/x/y/run", "/z/y/run"], ["x/run", "x/y/run", "z/y/run"]),
        (["/a/last.ckpt", "/b/last.ckpt"], ["a/last.ckpt", "b/last.ckpt"]),
        (["/runs/base/adapter"], ["runs/base"]),
        (["/adapter"], ["adapter"]),
        (["/run", "/a/run"], ["/run", "a/run"]),
        (["/base/adapter"], ["/base"]),
    ],
)
def test_names_are_short_and_told_apart(paths: list[str], names: list[str]) -> None:
    assert served_names(places(*paths)) == names
    assert served_names(places(*reversed(paths))) == names[::-1]


def test_one_adapter_twice_is_refused(served_folders: list[Path]) -> None:
    one = served_folders[0]
    with pytest.raises(ConfigError, match=r"one and .*one/adapter: they are the same"):
        find_models([str(one), str(one / "adapter")], None)


def test_adapters_of_another_base_are_named(served_folders: list[Path], tmp_path: Path) -> None:
    other_base = miniature("qwen2", tmp_path / "base", seed=9, tie_word_embeddings=False)
    other = trained_run(tmp_path / "other", other_base)
    with pytest.raises(ConfigError) as error:
        find_models([*map(str, served_folders), str(other)], None)
    (problem, advice) = str(error.value).splitlines()
    assert problem.startswith(f"{other} belongs to base, {served_folders[0]} to ")
    assert "take adapters of another one apart" in advice
    with pytest.raises(ConfigError, match="trained on another base"):
        find_models([str(served_folders[0])], find_models([str(other)], None)["base"].model)


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)no adapter or model at .*x.*\n.*at .*y"):
        find_models([str(tmp_path / "x"), str(tmp_path / "y")], None)


def test_two_runs_of_one_name(served_folders: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(served_folders[0], tmp_path / "one")
    names = list(find_models([str(served_folders[0]), str(copy)], None))
    assert names == ["base", f"{served_folders[0].parent.name}/one", f"{tmp_path.name}/one"]


def test_each_speaks_and_leaves_the_base_as_it_was(shop: Shop) -> None:
    before = {name: p.clone() for name, p in shop.base.model.named_parameters()}
    said = [shop.expected(name, QUESTION, max_new_tokens=12) for name in shop.models]
    assert len(set(said)) == 3
    assert [shop.expected(n, QUESTION, max_new_tokens=12) for n in reversed(shop.models)] == said[
        ::-1
    ]
    after = dict(shop.base.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(p, after[name]) for name, p in before.items())
