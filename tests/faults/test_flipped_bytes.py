"""One byte flipped, or a file cut off, in everything we write and read again: noticed or harmless.

Files are found in the folders, so that a new one is covered the day it is written. Noticed means: a
GraftlabError, or a line, that names the file. Whatever is said, there is never a traceback, and
never another result.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftlab.adapters.artifact import find_artifact
from graftlab.data.prepared import PreparedData
from graftlab.errors import GraftlabError, Paused
from graftlab.recipes.prepare import prepare
from graftlab.recipes.spec import PrepareSpec
from graftlab.reports.gather import known_jobs, read
from graftlab.sweeps.ledger import Ledger
from graftlab.text.encode import encode
from graftlab.tracking.folder import find_runs
from graftlab.training.checkpoint import Checkpointing
from graftlab.training.observer import Observer
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples
from left_behind import left_behind
from recipe_rows import sentence, turns, write_lines
from sweep_runs import jobs_of, small_run, sweep_here
from training_spec import small_root, small_spec

PAUSED_AT = 7
FLIP, HALF, EMPTY = "a flipped byte", "its first half", "nothing"


def damage(file: Path, kind: str, seed: str) -> bool:
    """Change the file as `kind` says; False where there is nothing to change."""
    content = bytearray(file.read_bytes())
    if not content:
        return False
    if kind == FLIP:
        dice = random.Random(f"{seed} {file.name}")
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    else:
        del content[len(content) // 2 if kind == HALF else 0 :]
    before = file.stat()
    if before.st_nlink > 1:  # what a hard link shows elsewhere stays as it is
        file.unlink()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))  # clocks are coarse
    return True


def damaged(whole: Path, scratch: Path, kinds: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """A copy of `whole` for every file in it and every kind of damage, with that file's path."""
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert names
    for name in names:
        for kind in kinds:
            copy = scratch / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(whole, copy)
            if damage(copy / name, kind, str(len(kinds))):
                yield copy, f"{name} with {kind}"


class Stop(Observer):
    """Has a step saved and ends the run in the middle of the next one."""

    keeps = (PAUSED_AT,)

    def after_step(self, row: dict[str, float]) -> None:
        if row["step"] > PAUSED_AT:
            raise Paused("enough")


def told(capfd: pytest.CaptureFixture[str]) -> str:
    said = capfd.readouterr()
    return "".join((said.out + said.err).split())  # the console wraps lines


def names_it(text: str, what: str) -> bool:
    """Whether a message names the file, or the folder of its `checksums.json`."""
    name = Path(what.partition(" with ")[0]).name.removesuffix(".xxh3")
    return name in text or "checksums.json" in text


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    """Ten steps; a checkpoint every third and behind each epoch."""
    root = tmp_path_factory.mktemp("flips")

    small_root(root)
    return replace(
        small_spec(root),
        callbacks=Callbacks(samples=Samples(prompts=1), progress=False),
        checkpoint=Checkpointing(every_steps=3),
    )


@pytest.fixture(scope="module")
def finished(spec: TrainSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(replace(spec, run_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def unfinished(spec: TrainSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unfinished") / "run"
    with pytest.raises(Paused):
        run(replace(spec, run_dir=str(folder)), observer=Stop())
    assert len([*(folder / "checkpoints").glob("*.ckpt")]) > 1
    return folder


def result_of(folder: Path) -> dict[str, Any]:
    return {k: v for k, v in left_behind(folder).items() if k != "checkpoints"}


KINDS = [pytest.param((FLIP,), id="flip")]
CUTS = [pytest.param((HALF, EMPTY), id="cut")]
SLOW_CUTS = [pytest.param((HALF, EMPTY), id="cut", marks=pytest.mark.slow)]
MORE = [pytest.param((FLIP,) * 6, id="six flips", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kinds", [*KINDS, *SLOW_CUTS, *MORE])
def test_an_unfinished_run_goes_on_to_the_same_end(
    spec, finished, unfinished, tmp_path, capfd, kinds
):
    wanted, fell_back = result_of(finished), 0
    for folder, what in damaged(unfinished, tmp_path, kinds):
        told(capfd)
        again = replace(spec, run_dir=str(folder), resume="auto")
        if isinstance(problem := _tried(lambda again=again: run(again)), str):
            assert names_it(problem, what), (what, problem)
            continue
        said = told(capfd)
        assert result_of(folder) == wanted, what
        fell_back += "trainedagain" in said
        if what.endswith(f"{PAUSED_AT:06d}.ckpt with {kinds[0]}"):
            assert names_it(said, what), what
            assert "goesonfromstep5,and2stepsaretrainedagain" in said
    assert fell_back


@pytest.mark.parametrize("kinds", [*KINDS, *CUTS, *MORE])
def test_a_run_to_be_found_again_is_found_or_named(unfinished, tmp_path, capfd, kinds):
    (wanted,) = find_runs(unfinished.parent)
    for kind in kinds:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(unfinished, folder)
        damage(folder / "run.yaml", kind, kind)
        found = find_runs(tmp_path)
        assert wanted in found or "run.yaml" in told(capfd)
        assert found.keys() <= {wanted}


@pytest.mark.parametrize("kinds", [*KINDS, *SLOW_CUTS, *MORE])
def test_a_finished_run_is_read_as_it_was_written(spec, finished, tmp_path, kinds):
    wanted, noticed = seen(spec, finished), 0
    for folder, what in damaged(finished, tmp_path, kinds):
        for name, found in seen(spec, folder).items():
            if isinstance(found, str):  # a message
                assert names_it(found, what), (what, found)
                noticed += 1
            else:
                same = _equal(found, wanted[name])
                assert same, (what, name)
    assert noticed > 5


def seen(spec: TrainSpec, folder: Path) -> dict[str, Any]:
    """What readers of a finished run get, or are told: report, resume=auto, adapter=."""
    places = [folder, folder / "adapter-final", *sorted((folder / "checkpoints").glob("*.ckpt"))]
    found = {str(p.relative_to(folder)): _tried(lambda p=p: _adapter(p)) for p in places}
    again = replace(spec, run_dir=str(folder), resume="auto")
    found["result"] = _tried(lambda: (lambda r: (r.score, r.steps, r.best_step))(run(again)))
    report = read(folder)
    found["report"] = (
        report.reason
        if report.reason
        else {
            "config": {k: v for k, v in report.config.items() if k != "run_dir"},
            "rows": report.rows,
            "times": report.times,
            "samples": report.samples,
            "score": report.result and report.result.score,
            "card": report.card,
        }
    )
    return found


def _adapter(place: Path) -> list[Any]:
    source = find_artifact(str(place)).require_adapter()
    tensors = {name: tensor.numpy().tobytes() for name, tensor in source.tensors().items()}
    config = source.run()
    config.pop("run_dir")
    return [tensors, source.config(), config, source.base_fingerprint()]


def _tried(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except GraftlabError as error:
        return str(error)


def _equal(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


@pytest.mark.parametrize("kinds", [*KINDS, *CUTS, *MORE])
def test_tokens_are_made_anew(spec, tmp_path, kinds):
    rows = spec.data.load().train
    tokenizer = spec.model.load_tokenizer()
    cache = tmp_path / "cache"
    wanted = encode(rows, tokenizer, max_length=80, cache=cache)
    noticed = 0
    for copy, what in damaged(cache, tmp_path, kinds):
        for again in (False, True):
            found = encode(rows, tokenizer, max_length=80, cache=copy)
            for name in ("input_ids", "labels", "offsets", "parts", "sources"):
                assert np.array_equal(getattr(found, name), getattr(wanted, name)), (what, name)
            assert found.fingerprint == wanted.fingerprint
            if again:
                assert found.note is None, "it was mended"
            elif found.note:
                assert "made anew" in found.note
                noticed += 1
    assert noticed >= 6 * len(kinds)


@pytest.mark.parametrize("kinds", [*KINDS, *CUTS, *MORE])
def test_prepared_data_is_refused(tmp_path, kinds):
    conversations = [
        {"messages": turns(sentence(n, words=6), sentence(n + 999, words=6))} for n in range(40)
    ]
    rows = write_lines(tmp_path / "chats.jsonl", conversations)
    whole = tmp_path / "whole"
    from graftlab.recipes.sources import SourceSpec

    source = SourceSpec(files=str(rows or tmp_path / "chats.jsonl"))
    prepare(PrepareSpec(out=str(whole), sources={"chats": source}))
    wanted, refused = _conversations(whole), set()
    for folder, what in damaged(whole, tmp_path, kinds):
        found = _tried(lambda folder=folder: _conversations(folder))
        if isinstance(found, str):
            assert names_it(found, what), (what, found)
            assert "data=jsonl data.train=" in found
            refused.add(Path(what.partition(" with ")[0]).name)
        else:
            assert found == wanted, what
    assert refused >= {"train.jsonl", "valid.jsonl", "manifest.json"}


def _conversations(folder: Path) -> list[Any]:
    found = PreparedData(path=str(folder)).load()
    return [[c.messages for c in side] for side in (found.train, found.valid)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A sweep of two jobs, of which the last is not finished."""
    root = tmp_path_factory.mktemp("sweep")
    jobs = jobs_of(replace(small_run(root), max_steps=2), [1e-3, 2e-3])
    sweep_here(root / "sweep", jobs)
    return root / "sweep", jobs


def scores(folder: Path) -> list[Any]:
    return [(job.number, job.state, job.score, job.swept) for job in Ledger(folder).jobs()]


@pytest.mark.parametrize("places", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_ledger_is_refused(swept, tmp_path, places):
    folder, _ = swept
    file, dice, noticed = tmp_path / "ledger.db", random.Random(places), 0
    content = (folder / "ledger.db").read_bytes()
    written = [place for place, byte in enumerate(content) if byte]
    wanted = everything(folder)
    for number in range(places + 2):
        cut = {places: len(content) // 2, places + 1: 0}.get(number)
        changed = bytearray(content[:cut])
        if cut is None:
            changed[dice.choice(written)] ^= 1 << dice.randrange(8)
        file.write_bytes(changed)
        found = _tried(lambda: everything(tmp_path))
        if isinstance(found, str):
            assert "ledger.db" in found
            noticed += 1
        else:
            assert found == wanted, number
    assert noticed > places // 4


def everything(folder: Path) -> list[Any]:
    ledger = Ledger(folder)
    known = [(str(path.name), job) for path, job in known_jobs([folder]).items()]
    return [
        ledger.jobs(),
        ledger.rungs(),
        [ledger.spec(job.number) for job in ledger.jobs()],
        ledger.fact("rules"),
        known,
    ]


@pytest.mark.parametrize("most", [6, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_sweep_ends_as_before(swept, tmp_path, most):
    whole, jobs = swept
    wanted, tried = scores(whole), 0
    for folder, what in islice(damaged(whole, tmp_path, (FLIP, EMPTY)), most):
        tried += 1
        problem = _tried(lambda folder=folder: sweep_here(folder, jobs))
        if isinstance(problem, str):
            assert names_it(problem, what), (what, problem)
        else:
            assert scores(folder) == wanted, what
    assert tried >= 6


def test_a_lost_ledger_is_made_again_from_the_run_folders(swept, tmp_path):
    """As the message advises."""
    whole, jobs = swept
    shutil.copytree(whole, tmp_path / "copy")
    (tmp_path / "copy" / "ledger.db").rename(tmp_path / "copy" / "ledger.db.damaged")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "copy").rglob("*.ckpt")}
    assert before
    sweep_here(tmp_path / "copy", jobs)
    assert scores(tmp_path / "copy") == scores(whole)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "copy").rglob("*.ckpt")}
    assert after == before, "nothing was trained again"
