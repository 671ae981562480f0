"""The verb at the door: every option builds, typos are told, help is there, exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftlab.cli.compose import build, compose
from graftlab.cli.job_outputs import folder_name
from graftlab.cli.main import main
from graftlab.cli.overrides import read_arguments
from graftlab.cli.schema import read_schema
from graftlab.cli.validate import check_arguments
from graftlab.errors import ConfigError
from graftlab.files.paths import conf_dir
from graftlab.recipes.decontaminate import Decontaminate
from graftlab.recipes.dedupe import Dedupe
from graftlab.recipes.mix import Mix
from graftlab.recipes.sources import SourceSpec
from graftlab.recipes.spec import PrepareSpec
from graftlab.recipes.split import Split
from graftlab.registry import dump, restore
from kept_logging import kept_logging
from recipe_rows import read_lines, sentence, turns, write_lines

CONF = conf_dir()
MENU = read_schema("prepare", [CONF])
OPTIONS = [(group, option) for group, options in MENU.groups.items() for option in options]


def built(*overrides: str) -> PrepareSpec:
    words = check_arguments(read_arguments(overrides, "prepare"), MENU, multirun=False)
    spec: PrepareSpec = build(compose("prepare", [word.hydra for word in words]))
    return spec


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_builds(group: str, option: str) -> None:
    spec = built(f"{group}={option}", "corpus=corpus.txt", "out=made", "seed=7")
    assert spec.mix.seed == 7
    assert restore(PrepareSpec, yaml.safe_load(yaml.safe_dump(dump(spec)))) == spec


def test_defaults_are_those_of_the_classes() -> None:
    spec = built("corpus=chats.jsonl")
    assert (spec.dedupe, spec.split, spec.mix) == (Dedupe(), Split(), Mix())
    assert spec.decontaminate == Decontaminate()
    assert spec.sources == {"core": SourceSpec(files="chats.jsonl")}


def test_sources_can_be_named_on_the_command_line() -> None:
    spec = built(
        "corpus=[a, b.jsonl,'c, d.jsonl']",
        "sources.extra.files=more (x=1), y.csv",
        "sources.extra.columns={user: question, assistant: reply}",
        "sources.third.files=[a.jsonl,b.jsonl]",
        "mix.weights={core: 3, extra: 1, third: 0.5}",
        "decontaminate.against=my eval, 1.jsonl",
    )
    assert spec.sources["core"].files == ["a", "b.jsonl", "c, d.jsonl"]
    assert spec.sources["extra"].files == "more (x=1), y.csv"
    assert spec.sources["extra"].columns == {"user": "question", "assistant": "reply"}
    assert spec.sources["third"].files == ["a.jsonl", "b.jsonl"]
    assert spec.mix.weights == {"core": 3, "extra": 1, "third": 0.5}
    assert spec.decontaminate.against == "my eval, 1.jsonl"


TYPOS = {
    "corpos=a": "Did you mean `corpus`?",
    "sources.core.fils=a": "Did you mean `sources.core.files`?",
    "dedupe.nere=0.8": "Did you mean `dedupe.near`?",
    "+split.valdi=0.1": "Did you mean `split.valid`?",
    "recipe=chat": "Did you mean `chats`?",
    "epochs=3": "`epochs` is not a key of graftlab prepare",
    "dedupe.near=close": "dedupe.near must be a number or null",
    "split.valid=2": "split.valid=2.0 is out of range",
    "sources.core.format=jsn": "Did you mean `json`?",
    "sources.core.steps=[nothing]": "sources.core.steps: `nothing` is not one of",
    "corpus=none.jsonl": "sources.core.files=none.jsonl does not exist: in",
    "corpus=null": "sources.core.files is not set",
    "out=null": "out is not set",
    "decontaminate.against=none": "decontaminate.against=none does not exist",
    "mix.weights={corr: 1}": "Did you mean `core`?",
}

Knock = Callable[..., tuple[int, str, str]]


@pytest.fixture
def knock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Knock]:
    """Runs `graftlab prepare ...` in a folder with a file of twenty rows."""
    rows = [{"messages": turns(sentence(n), sentence(n + 100))} for n in range(20)]
    write_lines(tmp_path / "chats.jsonl", rows)
    monkeypatch.chdir(tmp_path)

    def answer(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["prepare", *words])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    with kept_logging():
        yield answer


@pytest.mark.parametrize(("word", "message"), TYPOS.items())
def test_one_message_and_exit_code_2(word: str, message: str, knock: Knock) -> None:
    given = {"corpus": "chats.jsonl", "out": "made"}
    given.pop(word.split("=")[0], None)
    code, out, err = knock(*(f"{key}={value}" for key, value in given.items()), word)
    assert code == 2
    assert message in err
    assert err.startswith("graftlab prepare:")
    assert "Traceback" not in out + err
    assert not Path("made").exists()


def test_it_runs_and_leaves_nothing_else(knock: Knock) -> None:
    code, out, err = knock("corpus=chats.jsonl", "out=my data, 1", "split=test")
    assert (code, err) == (0, "")
    assert "core: read" in out
    assert sorted(path.name for path in Path().iterdir()) == ["chats.jsonl", "my data, 1"]
    assert len(read_lines(Path("my data, 1/train.jsonl"))) == 16
    assert json.loads(Path("my data, 1/manifest.json").read_text())["seed"] == 0


def test_every_job_of_a_sweep_has_a_folder_of_its_own(knock: Knock) -> None:
    words = ("-m", "corpus=chats.jsonl", "out=my sets", "seed=1,2", "dedupe=default,none")
    for _ in range(2):  # a second time, each job takes the place of its own result
        code, out, err = knock(*words)
        assert (code, err) == (0, "")
    names = [f"seed={seed},dedupe={how}" for seed in (1, 2) for how in ("default", "none")]
    assert sorted(path.name for path in Path("my sets").iterdir()) == sorted(names)
    assert "data.path=my sets/seed=2,dedupe=none" in out
    for seed in (1, 2):
        told = json.loads(Path(f"my sets/seed={seed},dedupe=none/manifest.json").read_text())
        assert told["seed"] == seed
    assert knock("corpus=chats.jsonl", "out=my sets")[0] == 2  # a single run removes no jobs
    code, _, err = knock("-m", "corpus=chats.jsonl", "out=my sets/seed=1,dedupe=none", "seed=1,2")
    assert code == 2
    assert "is a data set itself" in err
    (Path("my sets") / "seed=3").mkdir()
    (Path("my sets") / "seed=3" / "thesis.txt").touch()
    code, _, err = knock("-m", "corpus=chats.jsonl", "out=my sets", "seed=1,3")
    assert code == 2
    assert "seed=3 holds other files" in err


def test_a_sweep_of_one_job_is_a_single_run(knock: Knock) -> None:
    assert knock("-m", "corpus=chats.jsonl", "out=made", "seed=1")[0] == 0
    assert Path("made/train.jsonl").is_file()


def test_names_of_jobs_are_names_of_folders() -> None:
    assert folder_name(["seed=1", "++mix.weights.core=0.5"]) == "seed=1,mix.weights.core=0.5"
    odd = [folder_name([f"sources.a.files={text}"]) for text in ("a/b", "a b", "../x", "y" * 300)]
    assert len(set(odd)) == 4
    assert all(len(name) < 120 and "/" not in name for name in odd)


def test_help_and_configuration(knock: Knock) -> None:
    code, out, _ = knock("--help")
    assert code == 0
    assert out.startswith("graftlab prepare: From raw files to a data set")
    for word in ("recipe", "corpus=null", "dedupe", "sources"):
        assert word in out
    assert "sources.NAME.files" in knock("--help", "sources")[1]
    assert "dedupe.near" in knock("--help", "dedupe")[1]
    shown: Any = yaml.safe_load(knock("--cfg", "job", "corpus=a.jsonl", "--resolve")[1])
    assert shown["sources"]["core"]["files"] == "a.jsonl"


def test_unknown_parts_are_refused_when_restored() -> None:
    data = dump(built("corpus=a.jsonl"))
    data["sources"]["core"]["fils"] = 1
    with pytest.raises(ConfigError, match=r"`sources\.core\.fils`.*Did you mean `files`"):
        restore(PrepareSpec, data)


def test_two_inputs_without_a_rewriter_and_how_to_get_the_third(knock: Knock) -> None:
    line = (
        "The ship came in from the grey sea, and men with lanterns ran along the old harbour wall. "
    )
    Path("book.txt").write_text("\n\n".join(f"{line * 4}Number {n}." for n in range(12)))
    words = ("recipe=systems-theologian", "corpus=book.txt", "out=made", "dedupe=none")
    words = (*words, "curate.max_length=80", "split=none")
    code, out, err = knock(*words)
    assert (code, err) == (0, "")
    told = [said for said in out.splitlines() if "rewriter=http" in said]
    assert len(told) == 1
    assert "Inputs made of each text: dropout, abstract." in told[0]
    assert "rewriter=local rewriter.model=DIR" in told[0]
    rows = read_lines(Path("made/train.jsonl"))
    assert len(rows) == 24
    assert {row["labels"]["variation"] for row in rows} == {"dropout", "abstract"}
    assert json.loads(Path("made/manifest.json").read_text())["rewriter"] is None
    code, out, _ = knock(*words, "persona.variations=[dropout]")
    assert code == 0
    assert "rewriter" not in out  # nothing is missing
    code, _, err = knock(*words, "persona.variations=[neutral]")
    assert code == 2
    assert "needs a rewriter" in err
