"""A damaged, foreign or half-written checkpoint: the one before it is taken, and that is said."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import graftlab
from graftlab.adapters.artifact import find_artifact
from graftlab.errors import ModelError, ResumeError
from graftlab.files.checksums import DamagedError, beside
from graftlab.recipes.rewriters.answer_cache import AnswerCache, CachedAnswer
from graftlab.registry import dump
from graftlab.tracking.identity import identity
from graftlab.tracking.ranking import Ranking
from graftlab.training.checkpoint import Checkpointing, CheckpointStore
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.whole import best_whole, newest_whole
from training_spec import small_root, small_spec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    root = tmp_path_factory.mktemp("checkpoints")
    small_root(root)
    return replace(small_spec(root), checkpoint=Checkpointing(keep="all"), max_steps=4)


@pytest.fixture(scope="module")
def finished(spec: TrainSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 1 to 4."""
    folder = tmp_path_factory.mktemp("run") / "run"
    saved = Checkpointing(keep="all", every_steps=1)
    run(replace(spec, run_dir=str(folder), checkpoint=saved))
    return folder


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> CheckpointStore:
    shutil.copytree(finished, tmp_path / "run")
    return CheckpointStore(tmp_path / "run" / "checkpoints")


def configuration(store: CheckpointStore) -> str:
    return str(store.saved()[0].load()["identity"]["configuration"])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_damaged_ones_are_set_aside_and_what_is_lost_is_said(store, capsys):
    wanted, saved = configuration(store), store.saved()
    assert [one.step for one in saved] == [1, 2, 3, 4]
    flip(saved[3].path)
    saved[2].path.write_bytes(b"")
    assert newest_whole(store, wanted).step == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "2 steps are trained again" in said
    assert "1 step is trained again" in said
    assert [one.step for one in store.saved()] == [1, 2]
    assert len([*store.folder.glob("*.ckpt.damaged")]) == 2, "nothing is deleted"
    assert not beside(saved[3].path).exists()


def test_a_foreign_one_is_passed_over_where_there_is_one_of_our_own(store):
    wanted, last = configuration(store), store.last()
    content = last.load()
    content["identity"]["configuration"] = "another"
    beside(last.path).unlink()
    torch.save(content, last.path)
    assert newest_whole(store, wanted).step == 3
    assert newest_whole(store, "a third").step == 3, "refused later, by what differs"
    assert len(store.saved()) == 3


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_one_error_where_none_is_whole(store, content):
    wanted = configuration(store)
    for saved in store.saved():
        beside(saved.path).unlink()
        torch.save({"x": 1}, saved.path) if content is None else saved.path.write_bytes(content)
    with pytest.raises(ResumeError, match=r"(?s)step-000004.*step-000001.*begins anew"):
        newest_whole(store, wanted)
    assert len(store.saved()) == 4, "all as they were"


def test_the_best_that_is_whole_ends_the_run(store, capsys):
    ranked = store.ranked()
    flip(ranked[0].path)
    assert best_whole(store) == ranked[1]
    said = " ".join(capsys.readouterr().out.split())
    assert f"The adapter is that of step {ranked[1].step}" in said


def test_pruning_leaves_the_last_whole_one(store):
    ranked = store.ranked()
    worst = ranked[-1] if ranked[-1] != store.last() else ranked[-2]
    for saved in store.saved():
        if saved != worst:
            flip(saved.path)
    store.prune(1)
    assert worst in store.saved()
    assert {beside(one.path) for one in store.saved()} == {*store.folder.glob("*.xxh3")}


def test_a_kill_between_checksum_and_checkpoint_loses_neither(store, monkeypatch):
    """The checksum comes first: one without its file is swept away, and nothing looks damaged."""
    path = store.path(5, {}, Ranking())
    shutil.copyfile(store.last().path, store.partial(path))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graftlab.files.checksums.publish", killed)
    with pytest.raises(KeyboardInterrupt):
        store.publish(path)
    assert beside(path).exists()
    assert newest_whole(store, configuration(store)).step == 4
    store.prune("all")
    assert not beside(path).exists()
    assert len(store.saved()) == 4


def test_a_run_goes_on_from_the_one_before(spec, finished, store, capsys):
    """End to end; the best of the log and the result are as if nothing had been."""
    folder = store.folder.parent
    saved = Checkpointing(keep="all", every_steps=1)
    again = replace(spec, run_dir=str(folder), checkpoint=saved, resume="auto")
    assert identity(dump(again), paths=False) == configuration(store)
    (folder / "result.json").unlink()
    flip(store.last().path)
    (folder / "train_log.csv").write_text("nonsense")
    result = run(again)
    assert "goes on from step 3" in " ".join(capsys.readouterr().out.split())
    assert result.steps == 4
    weights = Path("adapter-final") / "adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (finished / weights).read_bytes()
    assert (folder / "train_log.csv").read_text().count("\n") == (
        finished / "train_log.csv"
    ).read_text().count("\n")


def test_an_adapter_in_a_damaged_checkpoint_is_refused_by_name(store):
    flip(store.last().path)
    with pytest.raises(ModelError, match=r"step-000004.*Copy it again"):
        find_artifact(str(store.last().path)).require_adapter()


def test_a_card_may_be_edited_and_a_config_not_unseen(store):
    folder = store.folder.parent / "adapter"
    (folder / "card.md").write_text("mine")
    assert find_artifact(str(folder)).require_adapter().tensors()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": ', '"r":  '))
    with pytest.raises(ModelError, match=r"adapter_config.json.*checksums.json if the change"):
        find_artifact(str(folder)).require_adapter()
    (folder / "checksums.json").unlink()
    assert find_artifact(str(folder)).require_adapter().tensors(), (
        "as the message says, and as others' folders are"
    )


def test_answers_that_were_paid_for_are_asked_for_again_where_damaged(tmp_path, capsys):
    answers = AnswerCache(tmp_path / "answers.jsonl")
    for key in "abc":
        answers.put(key, CachedAnswer(f"text of {key} \ud800 \u2028", "stop", (1, 2)))
    content = answers.path.read_bytes()
    answers.path.write_bytes(content.replace(b"text of b", b"text of d") + b'{"key": "torn')
    again = AnswerCache(answers.path)
    assert [again.get(key) is not None for key in "abc"] == [True, False, True]
    assert "written: 1." in capsys.readouterr().err


def test_the_shipped_base_and_demo_are_what_they_were():
    """Read from the package, which pip has checked; their content is part of what is measured."""
    package = Path(graftlab.__file__).parent
    homes = {package / "apple/assets": Path("afm-mini"), package / "assets": Path()}
    files = {
        name / path.relative_to(home): path
        for home, name in homes.items()
        for path in home.rglob("*")
        if path.is_file()
    }
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.as_posix().encode() + files[name].read_bytes())
    assert digest.hexdigest() == SHIPPED


SHIPPED = "177e791414ed766ca11fbc4086e559e9b40e78ec8f59b497fa942add1040a449"
"""To be changed with them, and with the figures of the README that come from them."""


def test_damage_is_a_message_never_a_traceback():
    from graftlab.errors import GraftlabError

    assert issubclass(DamagedError, GraftlabError)
