"""Free text and paths arrive as they were typed, whatever Hydra's grammar makes of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from graftlab.cli.overrides import PATHS, TEXT, TOKENS, quote, read_arguments

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Doors

PIECES = [
    *["\\", "'", '"', ",", "=", "(", ")", "[", "]", "{", "}", "$", "${", "${x}", "\\${", "\n"],
    *[" ", "\t", "a", "é", "日本", "#", ":", "~", "+", "@", "?", "???", "null", "1e-3", "%", "-"],
]

NASTY = [
    'Hello, "world"! (a=b) it\'s ${HOME} \\',
    "first line\nsecond line, with = and 'quotes'",
    "  spaces around  ",
    "null",
    "true",
    "1e-3",
    "[a, b]",
    "{a: b}",
    "choice(a,b)",
    "???",
    "Grüße aus 日本 🎵",
    "\\${escaped} \\\\${twice}",
    "'",
    "",
]


def test_quoting_is_undone_by_parser_sweeper_and_resolver() -> None:
    """Through Hydra's parser, its sweeper's rewriting, and OmegaConf's interpolation."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    parser, rng = OverridesParser.create(), random.Random(0)
    texts = ["".join(rng.choices(PIECES, k=rng.randint(0, 7))) for _ in range(500)]
    special = 0
    for text in (t for t in texts if t != "???"):
        parsed = parser.parse_override(f"prompt={quote(text)}")
        again = parser.parse_override(f"prompt={parsed.get_value_element_as_str()}")
        assert parsed.value() == again.value()
        assert not parsed.is_sweep_override()
        assert OmegaConf.create({"prompt": parsed.value()}).prompt == text
        special += parsed.value() != text  # escaped for OmegaConf
    assert special > 50


@pytest.mark.parametrize(("text", "other"), list(zip(NASTY[::2], NASTY[1::2], strict=True)))
def test_a_prompt_arrives_unharmed(text: str, other: str, doors: Doors) -> None:
    assert doors.knock("sample", "model=tiny", f"prompt={text}", f"system={other}").code == 0
    assert doors.specs[0].prompt == text
    assert doors.specs[0].system == other


def test_paths_and_names_arrive_unharmed(doors: Doors, qwen2_folder: Path) -> None:
    odd = doors.folder / "a, b=(c) 'd' é"
    odd.mkdir()
    (odd / "adapter_config.json").write_text("{}", encoding="utf-8")
    (odd / "model").symlink_to(qwen2_folder)
    (odd / "x,y.jsonl").write_text((doors.folder / "chats.jsonl").read_text(), encoding="utf-8")
    seen = doors.train(
        f"model.path={odd / 'model'}",
        f"data.train={odd / 'x,y.jsonl'}",
        f"data.valid=[{doors.folder / 'chats.jsonl'},'{odd.parent / 'chats.jsonl'}']",
        "data.system_prompt=You are: terse, (very) terse.",
        "data.default_instruction=null",
        f"lora.from={odd}",
        "name=first, second = third",
        f"hydra.run.dir={odd}/run, 1",
    )
    assert seen.code == 0, seen.err
    (spec,) = doors.specs
    assert spec.model.path == str(odd / "model")
    assert spec.data.train == str(odd / "x,y.jsonl")
    assert spec.data.valid == [str(doors.folder / "chats.jsonl")] * 2
    assert spec.data.system_prompt == "You are: terse, (very) terse."
    assert spec.data.default_instruction is None
    assert spec.lora.from_run == str(odd)
    assert spec.name == "first, second = third"
    assert spec.run_dir == str(odd / "run, 1")
    assert (odd / "run, 1" / ".hydra" / "overrides.yaml").is_file()


def test_free_text_never_sweeps(doors: Doors) -> None:
    assert doors.train("-m", "name=a,b", "lr=1e-3,1e-4", "data.system_prompt=x, y").code == 0
    jobs = doors.jobs()
    assert [(spec.name, spec.lr) for spec in jobs] == [("a,b", 1e-3), ("a,b", 1e-4)]
    assert {spec.data.system_prompt for spec in jobs} == {"x, y"}


def test_a_word_alone_is_the_adapter(doors: Doors) -> None:
    odd = doors.folder / "outputs" / "lr=0.1,rank=8"
    odd.mkdir(parents=True)
    assert doors.knock("sample", "outputs/lr=0.1,rank=8", "prompt=Hi").code == 0
    assert doors.knock("sample", "prompt=Hi", "some/run").code == 0
    assert [spec.adapter for spec in doors.specs] == ["outputs/lr=0.1,rank=8", "some/run"]


def test_words_alone_are_the_folders_of_a_report(doors: Doors) -> None:
    odd = "runs/a, b=(c) 'd'"
    (doors.folder / odd).mkdir(parents=True)
    assert doors.knock("report", "multirun/x", "limit=3", odd, "~/y").code == 0
    assert doors.knock("report").code == doors.knock("report", "dirs=[a,b]").code == 0
    assert doors.knock("report", "dirs=one, two").code == 0
    dirs = [["multirun/x", odd, "~/y"], [], ["a", "b"], ["one, two"]]
    assert [spec.dirs for spec in doors.specs] == dirs


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("[<|tool|>]", ["<|tool|>"]),
        ('[<|tool|>, "<a, b>"]', ["<|tool|>", "<a, b>"]),
        ("[]", []),
    ],
)
def test_tokens_are_lists_of_text(typed: str, tokens: list[str]) -> None:
    from graftlab.cli.compose import build, compose

    (word,) = read_arguments([f"lora.trainable_tokens={typed}"], "train")
    spec = build(compose("train", [word.hydra, "run_dir=run"])).training()
    assert spec.lora.trainable_tokens == tokens


def test_the_keys_of_free_text_exist() -> None:
    from graftlab.cli.compose import VERBS
    from graftlab.cli.schema import read_schema
    from graftlab.files.paths import conf_dir

    keys = {key for verb in VERBS for key in read_schema(verb, [conf_dir()]).dotted_keys()}
    assert keys >= TEXT | PATHS | TOKENS


def test_other_words_are_left_to_hydra() -> None:
    words = read_arguments(
        ["lr=1e-3,1e-4", "lora.targets=[q_proj,k_proj]", "model.path=null"], "train"
    )
    assert [word.hydra for word in words] == [word.typed for word in words]
