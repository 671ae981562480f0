"""No text of others reaches the terminal raw: escapes become visible, brackets stay brackets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hostile import Attack

EVIL = "\x1b]0;owned\x07\x9b2J\u202e[/red][bold]"
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def clean(attack: Attack, *arguments: str) -> str:
    """What a command says, once it is seen to hold no control character."""
    knock = attack.knock(*arguments)
    said = knock.out + knock.err
    assert RAW.search(said) is None, ascii(said)
    assert "MarkupError" not in said
    return said


def test_a_reports_names_and_reasons(attack: Attack) -> None:
    for number in (1, 2):
        config = {"name": f"{EVIL}{number}", "seed": number, "model": {"path": EVIL}}
        attack.write(f"outputs/run{number}/run.yaml", yaml.safe_dump(config, allow_unicode=True))
    attack.write("outputs/run2/error.txt", f"Error: {EVIL}\n")
    assert "[/red]" in clean(attack, "report", "outputs")


def test_a_folders_name(attack: Attack) -> None:
    folder = attack.folder / "a\x1b[2Jb\u202e"
    folder.mkdir()
    (folder / "run.yaml").write_text("seed: 1\n", encoding="utf-8")
    (attack.folder / "other").mkdir()
    (attack.folder / "other" / "run.yaml").write_text("seed: 2\n", encoding="utf-8")
    assert r"\x1b[2Jb" in clean(attack, "report", str(folder), "other")


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "model=tiny", f"prompts={EVIL}"],
        ["sample", f"adapter={EVIL}", "prompt=Hi"],
        ["train", f"experiment={EVIL}"],
        ["train", f"{EVIL}=1"],
        [EVIL],
        ["train", "data=jsonl", f"data.train={EVIL}"],
        ["toolkit", EVIL],
    ],
)
def test_what_was_typed(attack: Attack, words: list[str]) -> None:
    clean(attack, *words)


def test_rows_and_roles(attack: Attack) -> None:
    role = EVIL.encode("unicode_escape").decode().replace("\\x", "\\u00")
    attack.write("rows.jsonl", f'[{{"role": "{role}", "content": "x"}}]\n')
    line = ["model=hf", f"model.path={attack.model}", "data=jsonl", "data.train=rows.jsonl"]
    said = clean(attack, "inspect", *line)
    assert r"\x1b" in said


def test_a_run_yaml_in_a_message(attack: Attack, run_template: Callable[[Path], Path]) -> None:
    folder = run_template(attack.folder / "adapter")
    config = {"model": {"choice": EVIL}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    clean(attack, "sample", str(folder), "prompt=Hi")


def test_a_table_shows_texts_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    from graftlab.console import console

    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    console().print(table)
    said = capsys.readouterr().out
    assert RAW.search(said) is None
    assert said.count("[/red][bold]") == 3


def test_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    from graftlab.terminal import tell_traceback

    tell_traceback(RuntimeError(EVIL))
    said = capsys.readouterr().err
    assert RAW.search(said) is None
    assert r"\x1b]0;owned" in said
