"""`data.recipe`: made once, found again, made anew when anything that decides it has changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftlab.cli.compose import build
from graftlab.cli.compose import compose as compose_verb
from graftlab.cli.main import main
from graftlab.cli.overrides import read_arguments
from graftlab.cli.preflight import CommandLine
from graftlab.cli.recipe import recipe_arguments
from graftlab.cli.schema import read_schema
from graftlab.cli.sweep import read_sweep
from graftlab.cli.validate import check_arguments
from graftlab.data.prepared import PreparedData
from graftlab.data.source import DataSpec
from graftlab.errors import ConfigError, DataError
from graftlab.files.paths import absolute, conf_dir
from graftlab.recipes import dataset as module
from graftlab.recipes.dataset import compose, ensure_dataset
from graftlab.recipes.key import key_of
from graftlab.recipes.persona import Persona, default_frames
from graftlab.recipes.rewriters.local import LocalRewriter
from graftlab.recipes.sources import SourceSpec
from graftlab.recipes.spec import PrepareSpec
from graftlab.registry import dump, restore
from graftlab.sweeps.step_counts import lengths_of
from graftlab.text.frame import SHIPPED
from kept_logging import kept_logging
from recipe_rows import read_lines, sentence, turns, write_lines
from sweep_runs import small_run

Knock = Callable[..., tuple[int, str, str]]
RECIPE = ("data=prepared", "data.recipe=chats", "data.corpus=chats.jsonl")
"""A recipe for a verb, on the file that `knock` has."""


def rows(count: int, *, start: int = 0) -> list[Any]:
    return [
        {"messages": turns(sentence(n, words=6), sentence(n + 999, words=6))}
        for n in range(start, start + count)
    ]


@pytest.fixture
def knock(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    qwen2_folder: Path,
) -> Iterator[Knock]:
    """Runs a verb on a miniature, in a folder with chats.jsonl and a cache of its own."""
    write_lines(tmp_path / "chats.jsonl", rows(40))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))

    def answer(verb: str, *words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        model = ("model=hf", f"model.path={qwen2_folder}", "packing.max_length=512")
        code = main([verb, *model, *words])
        seen = capsys.readouterr()
        return code, seen.out.replace("\n", " "), seen.err

    with kept_logging():
        yield answer


def made() -> list[Path]:
    """The data sets in the cache."""
    return sorted(Path("cache").glob("prepared-*"))


QUICK = ("max_steps=1", "logger=none", "compile=off", "callbacks=quiet", "precision=fp32")


def test_a_run_prepares_what_it_trains_on_and_finds_it_again(knock: Knock) -> None:
    words = (*RECIPE, *QUICK, "resume=auto", "data.prepare.split.valid=0.2")
    code, out, err = knock("train", *words)
    assert (code, err) == (0, "")
    (folder,) = made()
    assert "data.recipe=chats: not prepared yet" in out
    assert f"{folder.name}/report.html" in out
    assert "dedupe" in out
    assert (folder / "report.html").is_file()
    assert not list(Path("cache").glob(".prepared*"))
    assert f"data.train: {len(read_lines(folder / 'train.jsonl'))} conversations" in out
    assert "data.valid: 8 conversations" in out
    (run,) = Path("outputs").glob("*/*")
    config = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    assert config["data"]["key"] == json.loads((folder / "manifest.json").read_text())["key"]
    assert config["data"]["prepare"]["split"]["valid"] == 0.2
    when = (folder / "train.jsonl").stat().st_mtime_ns

    # The same inputs are the same run, wherever the clock stands.
    os.utime("chats.jsonl", (1, 1))
    code, out, _ = knock("train", *words)
    assert code == 0
    assert "Already finished" in out
    assert (folder / "train.jsonl").stat().st_mtime_ns == when

    # Another row in an input is another data set, and so another run.
    write_lines(Path("chats.jsonl"), rows(41))
    code, out, _ = knock("train", *words)
    assert code == 0
    assert "Already finished" not in out
    assert len(made()) == 2
    assert len(list(Path("outputs").glob("*/*"))) == 2


def test_inspect_and_plan_look_at_the_same_data(knock: Knock) -> None:
    code, out, err = knock("inspect", *RECIPE, "data.path=mine", "rows=0")
    assert (code, err) == (0, "")
    assert "not prepared yet; it goes to mine" in out
    code, out, err = knock("plan", *RECIPE, "data.path=mine")
    assert (code, err) == (0, "")
    assert "prepared before; its report: mine/report.html" in out
    assert made() == []
    # `graftlab prepare` with the same words makes what is found, too.
    assert main(["prepare", "recipe=chats", "corpus=chats.jsonl", "out=mine", "seed=3"]) == 0
    assert knock("inspect", *RECIPE, "data.path=mine", "data.seed=3", "rows=0")[0] == 0


def test_jobs_of_a_sweep_share_what_is_the_same(knock: Knock) -> None:
    code, out, err = knock("inspect", "-m", *RECIPE, "data.seed=1,2", "batch_size=1,2", "rows=0")
    assert (code, err) == (0, "")
    assert out.count("not prepared yet") == out.count("prepared before") == 2
    assert len(made()) == 2
    wrong = "data.prepare.decontaminate.against=chats.jsonl"
    code, _, err = knock("inspect", "-m", *RECIPE, "data.seed=3,4", wrong, "rows=0")
    assert code == 1
    assert "job 1 (data.seed=4) failed: data.recipe=chats: No row is left to train on" in err


BAD = {
    "data.recipe=chat": "recipe=chat is not one of",
    "data.corpus=chat.jsonl": "Did you mean `chats.jsonl`?",
    "data.corpus=null": "Its corpus is data.corpus=FILE.",
    "data.prepare.dedupe.nere=1": "Did you mean `dedupe.near`?",
    "data.prepare.dedupe.near=close": "dedupe.near must be a number or null",
    "data.prepare.split.valid=2": "split.valid=2.0 is out of range",
    "data.prepare.mix.weights={cor: 1}": "Did you mean `core`?",
    "data.prepare.seed=1": "data.prepare.seed has a key of its own: data.seed",
    "data.prepare.out=here": "data.prepare.out has a key of its own: data.path",
    "data.prepare.decontaminate.against=none (1), 2": "against=none (1), 2 does not exist",
    "data.seed=-1": "data.seed=-1 is out of range",
    "data.recipe=null": "name it with data.recipe=NAME",
    "data.train=chats.jsonl": "brings its own files",
    "data.path=other": "holds other files",
}


@pytest.mark.parametrize(("word", "message"), BAD.items())
def test_one_message_at_the_door(word: str, message: str, knock: Knock) -> None:
    Path("other").mkdir()
    Path("other/thesis.txt").touch()
    code, out, err = knock("inspect", *RECIPE, word)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    assert not Path("cache").exists()


def test_two_mistakes_are_told_at_once(knock: Knock) -> None:
    _, _, err = knock("inspect", *RECIPE, "data.prepare.splt=none", "data.prepare.mixx.seed=1")
    assert "Did you mean `split`?" in err
    assert "Did you mean `mix.seed`?" in err or "`mixx.seed` is not a key" in err


def test_errors_of_the_recipe_name_it(knock: Knock) -> None:
    write_lines(Path("chats.jsonl"), [{"question": 1}] * 3)
    code, out, err = knock("inspect", *RECIPE)
    assert code == 2
    assert "data.recipe=chats: sources.core: none of its 3 rows can be used:" in err
    assert "chats.jsonl:1: unknown shape" in err
    assert "(3 rows: also chats.jsonl:2, chats.jsonl:3)" in err
    assert "Traceback" not in out + err
    assert made() == []
    write_lines(Path("chats.jsonl"), rows(40))
    assert knock("inspect", *RECIPE, "rows=0")[0] == 0  # nothing is in the way of the next one


def test_recipes_of_ones_own(knock: Knock) -> None:
    Path("own/recipe").mkdir(parents=True)
    Path("own/recipe/half.yaml").write_text(
        "# @package _global_\nsources:\n  core:\n    files: ${corpus}\nsplit:\n  valid: 0.5\n"
    )
    words = ("data=prepared", "data.recipe=half", "data.corpus=[chats.jsonl]", "rows=0")
    code, out, err = knock("inspect", "--config-dir", "own", *words)
    assert (code, err) == (0, "")
    assert "data.valid: 20 conversations" in out


def composed(folder: Path, **rest: Any) -> PreparedData:
    """`data.recipe=chats` without the command line."""
    data = PreparedData(recipe="chats", corpus=str(folder / "chats.jsonl"), **rest)
    source = SourceSpec(files=data.corpus)
    compose(data, PrepareSpec(corpus=data.corpus, sources={"core": source}))
    return data


def test_an_option_and_its_keys_are_both_heard() -> None:
    typed = ["data.prepare.rewriter.model=a, b", "data.prepare.rewriter=local"]
    words = read_arguments(["model=tiny", *RECIPE, *typed], "inspect")
    words = check_arguments(words, read_schema("inspect", [conf_dir()]), multirun=False)
    data = build(compose_verb("inspect", [word.hydra for word in words])).data
    told = recipe_arguments(data, read_schema("prepare", [conf_dir()]))
    assert [word.hydra for word in told[-2:]] == ["rewriter='local'", "rewriter.model='a, b'"]
    spec = build(compose_verb("prepare", [word.hydra for word in told]))
    assert spec.rewriter == LocalRewriter(model="a, b")


def test_a_specification_read_back_finds_the_same_folder(knock: Knock, tmp_path: Path) -> None:
    data = composed(tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        data.load()
    folder = ensure_dataset(data)
    assert folder == data.folder()
    again = restore(DataSpec, yaml.safe_load(yaml.safe_dump(dump(data))))
    assert again == data
    assert ensure_dataset(again) == folder
    assert len(again.load().train) + len(again.load().valid) == 40
    assert ensure_dataset(PreparedData(path=str(folder))) is None
    with pytest.raises(ConfigError, match="is not composed"):
        PreparedData(recipe="chats").folder()


def test_the_lengths_of_jobs_are_counted_on_what_the_recipe_makes(
    knock: Knock, tmp_path: Path
) -> None:
    base = small_run(tmp_path / "small")
    data = composed(tmp_path)
    lengths = lengths_of([replace(base, data=data, epochs=epochs) for epochs in (2, 3)])
    assert lengths is not None
    assert lengths[1].total_steps == 3 * lengths[1].steps_per_epoch
    assert [folder.name for folder in made()] == [data.folder().name]


def test_a_key_is_of_the_files_however_their_paths_are_typed(
    knock: Knock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep hands its jobs in full what was typed relative to this folder."""
    typed = composed(Path())
    assert typed.key == composed(tmp_path).key
    typed.prepare = absolute({"prepare": typed.prepare})["prepare"]
    assert ensure_dataset(typed) == typed.folder()


def test_a_run_with_auto_is_the_same_while_its_data_is_made_and_after(knock: Knock) -> None:
    words = (*RECIPE, *QUICK, "epochs=auto", "resume=auto")
    code, _, err = knock("train", *words)
    assert (code, err) == (0, "")
    for place in ((), ("hydra.run.dir=" + str(next(Path("outputs").glob("*/*"))),)):
        shutil.rmtree("cache")
        code, out, err = knock("train", *words, *place)
        assert (code, err) == (0, "")
        assert "Already finished" in out
    assert len(list(Path("outputs").glob("*/*"))) == 1


def test_a_sweep_with_auto_has_the_same_jobs_before_and_after_its_data_is_made(
    knock: Knock,
) -> None:
    jobs = []
    for _ in range(2):
        words = [*RECIPE, *QUICK, "epochs=auto", "seed=0,1"]
        command = CommandLine(read_schema("train", [conf_dir()]), conf_dir())
        line = read_sweep(
            command, check_arguments(read_arguments(words, "train"), command.schema, multirun=True)
        )
        jobs.append((line.folder, [line.drafts({"seed": text})[0].identity for text in "01"]))
        assert len(made()) == 1
    assert jobs[0] == jobs[1]


def test_a_damaged_result_in_the_cache_is_made_anew(knock: Knock, tmp_path: Path) -> None:
    data = composed(tmp_path)
    folder = ensure_dataset(data)
    assert folder is not None
    whole = (folder / "train.jsonl").read_bytes()
    (folder / "train.jsonl").write_bytes(whole[:-50])
    assert ensure_dataset(data) == folder
    assert (folder / "train.jsonl").read_bytes() == whole
    (folder / "manifest.json").write_text("{")
    assert ensure_dataset(data) == folder
    assert (folder / "train.jsonl").read_bytes() == whole
    (folder / "train.jsonl").write_bytes(b" " + whole[1:])  # of the same size
    with pytest.raises(ConfigError, match=r"train\.jsonl.*Remove the folder"):
        composed(tmp_path, path=str(folder))


def test_a_folder_of_another_data_set_is_left_alone(knock: Knock, tmp_path: Path) -> None:
    place = str(tmp_path / "mine")
    ensure_dataset(composed(tmp_path, path=place))
    before = (tmp_path / "mine" / "train.jsonl").read_bytes()
    write_lines(tmp_path / "chats.jsonl", rows(20, start=100))
    with pytest.raises(ConfigError, match="holds a data set of other inputs"):
        composed(tmp_path, path=place)
    assert (tmp_path / "mine" / "train.jsonl").read_bytes() == before


def test_a_cache_that_cannot_be_written_is_told(
    knock: Knock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "chats.jsonl" / "deep"))
    data = composed(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be written .*give data\.path=DIR"):
        ensure_dataset(data)


def test_inputs_that_change_while_they_are_read_are_told(
    knock: Knock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = composed(tmp_path)
    write_lines(tmp_path / "chats.jsonl", rows(41))
    with pytest.raises(DataError, match=r"data\.recipe=chats: The inputs changed"):
        ensure_dataset(data)
    assert not data.folder().exists()


MAKER = """
import sys, time
from pathlib import Path
from graftlab.recipes import dataset as module
sys.path.insert(0, sys.argv[2])
from test_dataset import composed
folder, slow = Path(sys.argv[1]), module.prepare
def prepare(*args, **kwargs):
    with (folder / "log").open("a") as log:
        log.write("made\\n")
    time.sleep(1.0)
    return slow(*args, **kwargs)
module.prepare = prepare
data = composed(folder)
print("ready", flush=True)
sys.stdin.readline()
module.ensure_dataset(data)
print(len(data.load().train), flush=True)
"""


def maker(folder: Path) -> subprocess.Popen[str]:
    """A process that makes the data set, slowly, once it is told to go."""
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests.parent / "src"), str(tests)])
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(folder), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "GRAFTLAB_CACHE": str(folder / "cache")},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_at_once_make_it_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "chats.jsonl", rows(40))
    makers = [maker(tmp_path) for _ in range(2)]
    for process in makers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in makers]
    assert [process.returncode for process in makers] == [0, 0]
    assert (tmp_path / "log").read_text() == "made\n"
    assert all(text.rstrip().splitlines()[-1].isdigit() for text in told)
    assert sum("prepares it; waiting" in text for text in told) == 1
    assert len(list((tmp_path / "cache").glob("*prepared*"))) == 1


def test_a_killed_maker_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "chats.jsonl", rows(40))
    process = maker(tmp_path)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert "not prepared yet" in process.stdout.readline()
    while not (tmp_path / "log").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (lock,) = (tmp_path / "cache").glob(".prepared-*.lock")
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    assert ensure_dataset(composed(tmp_path)) is not None
    assert not lock.exists()


def test_the_key_knows_all_that_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "chats.jsonl", rows(3))
    frame = tmp_path / "frame.yaml"
    frame.write_text((SHIPPED / "systems-theologian-neutral.yaml").read_text())
    frames = default_frames() | {"neutral": str(frame)}
    text = SourceSpec(files="chats.jsonl", steps=["persona"])
    spec = PrepareSpec(sources={"core": text}, persona=Persona(frames=frames))
    key = key_of(spec)
    os.utime("chats.jsonl", (1, 1))
    assert key_of(replace(spec, out="elsewhere")) == key
    others = {
        "seed": key_of(replace(spec, seed=1)),
        "steps": key_of(replace(spec, sources={"core": SourceSpec(files="chats.jsonl")})),
    }
    frame.write_text(frame.read_text() + "\n# a comment says nothing\n")
    assert key_of(spec) == key
    said = yaml.safe_load(frame.read_text())
    frame.write_text(yaml.safe_dump({**said, "system": "You are another."}))
    others["frame"] = key_of(spec)
    write_lines(tmp_path / "chats.jsonl", rows(3, start=1))
    others["content"] = key_of(spec)
    monkeypatch.setattr("graftlab.recipes.key.__version__", "99")
    others["version"] = key_of(spec)
    assert len({key, *others.values()}) == 6, others


def test_nothing_is_said_twice_by_the_processes_of_a_run(
    knock: Knock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = composed(tmp_path)
    ensure_dataset(data)
    capsys.readouterr()
    assert module.ensure_dataset(data, tell=False) is not None
    assert capsys.readouterr().out == ""
