"""What the pages say exists: commands are accepted, keys, files and links are there."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_origin

import pytest

from chats import chats
from gguf_files import write_gguf
from graftlab.cli.compose import VERBS
from graftlab.cli.main import main
from graftlab.cli.plugins import KEY as PLUGINS
from graftlab.hints import nested_spec
from graftlab.registry import choices, field_types
from graftlab.sweeps.engine import SweepOutcome
from graftlab.sweeps.step_counts import lengths_of
from graftlab.tracking.folder import RunFolder
from kept_logging import kept_logging

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
TYPED = {
    "lora.from": "lora.from_run",
    **{f"quantization.{key}": f"model.quantization.{key}" for key in ("double", "head", "cache")},
}
OTHERS = (
    *("uv", "source", "python -m pytest", "python -m graftlab.models.gguf ", "llama-server"),
    "ollama create",
)
"""Commands that are not ours to check."""
ELSEWHERE = ("docs/apple.md",)
"""Pages whose commands build on each other, and have a test of their own."""
AIROAD = "spirit_chatml_mix.jsonl"
"""The file that a guide trains on; comments in conf/ name it."""
TOP = ("src/", "tests/", "docs/", "conf/", "benchmarks/", "multirun/", ".ci/")


def spans(text: str) -> list[str]:
    """Code within lines."""
    return SPAN.findall(FENCE.sub("", text))


def commands() -> list[str]:
    """Every command of every page, once: lines of shell blocks, and spans that are one."""
    found: dict[str, None] = {}
    for page, text in TEXTS.items():
        if page in ELSEWHERE:
            continue
        blocks = [body for kind, body in FENCE.findall(text) if kind == "bash"]
        lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
        if not page.startswith("docs/reference/"):  # where spans are parts of commands
            lines += [
                s for s in spans(text) if s.startswith(("python train", "graftlab ")) and "=" in s
            ]
        found |= dict.fromkeys(line.strip() for line in lines if line.strip() and "..." not in line)
    return list(found)


OURS = [
    command
    for command in commands()
    if not command.startswith((*OTHERS, "make", "eval"))
    and not any(word in command for word in ("objective=dft", "--config-dir mine"))
]
"""Without what pages only add, which their own tests try."""


@pytest.fixture(scope="module")
def gguf_file(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(qwen2_folder, tmp_path_factory.mktemp("gguf") / "FILE.gguf", kind="Q8_0")


@pytest.fixture
def accepted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    qwen2_folder: Path,
    afm_folder: Path,
    gguf_file: Path,
) -> Iterator[Callable[[str], int]]:
    """Runs a command up to the task, which only notes that it was reached."""
    (tmp_path / "FILE.gguf").symlink_to(gguf_file)
    monkeypatch.setattr("graftlab.models.gguf.spec.fetched", lambda name: gguf_file)
    for name in ("FILE", "train.jsonl", "eval.jsonl", "valid.jsonl", "chats.jsonl", AIROAD):
        chats(tmp_path / name, 3)
    RunFolder(tmp_path / "RUN").take()
    (tmp_path / "RUN" / "adapter_config.json").write_text("{}")
    (tmp_path / "RUN" / "adapter_model.safetensors").write_text("")
    (tmp_path / "RUN" / "run.yaml").write_text(f"model: {{choice: hf, path: {qwen2_folder}}}")
    (tmp_path / "DIR").symlink_to(qwen2_folder)
    (tmp_path / "ASSETS").symlink_to(afm_folder)
    (tmp_path / "DRAFT").symlink_to(qwen2_folder)
    (tmp_path / "PATH").mkdir()
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    (tmp_path / "NOVEL").write_text("It was a dark night.\n")
    for folder in (tmp_path / "PREPARED", tmp_path / "data" / "mine"):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text('{"key": "", "result": {}, "seed": 0}')
        chats(folder / "train.jsonl", 3)
    monkeypatch.chdir(tmp_path)
    for verb in VERBS:
        task = importlib.import_module(f"graftlab.verbs.{verb}")
        monkeypatch.setattr(task, "run", lambda spec: None)
    monkeypatch.setattr(
        "graftlab.sweeps.run.run", lambda order: SweepOutcome(order.folder, [], 0.0)
    )
    for door in ("sweep", "tune"):  # without a process
        monkeypatch.setattr(f"graftlab.cli.{door}.lengths_apart", lengths_of)
    monkeypatch.setattr("graftlab.cli.tune.conclude", lambda *told: None)

    def call(command: str) -> int:
        words = shlex.split(command.replace("python train.py", "graftlab train"), comments=True)
        assert words[0] == "graftlab"
        return main(words[1:])

    with kept_logging():
        yield call


def test_there_is_something_to_check() -> None:
    assert len(OURS) > 25
    assert {"train.py", "sample", "inspect", "prepare"} <= {command.split()[1] for command in OURS}
    assert len(PAIRS) > 80
    assert len(PATHS) > 40


@pytest.mark.parametrize("command", OURS)
def test_a_command_is_accepted(
    command: str, accepted: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert accepted(command) == 0, capsys.readouterr().err


def test_a_wrong_command_is_not(accepted: Callable[[str], int]) -> None:
    assert accepted("python train.py lora.rnak=8") == 2


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        span.split()[1] for text in TEXTS.values() for span in spans(text) if span[:5] == "make "
    }
    named |= {command.split()[1] for command in commands() if command.startswith("make ")}
    assert len(named) > 5
    assert named <= targets


def test_each_way_in_activates_what_it_installed() -> None:
    """Every command further down is typed as it stands, whichever way was taken."""
    ways = [body.splitlines() for kind, body in FENCE.findall(TEXTS["README.md"]) if kind == "bash"]
    assert ways[0][0].startswith("make")
    assert ways[1][0].startswith("uv")
    for way in ways[:2]:
        active = way.index("source .venv/bin/activate")
        assert not any(line.startswith(("graftlab", "python")) for line in way[:active])
    assert ways[2] == ["make real"]
    assert all(line.split()[0] in ("graftlab", "python") for line in ways[3])


PAIRS = sorted(
    {
        pair
        for text in TEXTS.values()
        for span in spans(text)
        for pair in re.findall(r"(?<![\w./-])([a-z][a-z_.]*)=(\[[^\]]*\]|[^\s,]*)", span)
    }
)


def specs_of(group: str, declared: object) -> list[type]:
    """The classes a node of the configuration may be."""
    own = nested_spec(declared)
    return [*choices(group).values(), *([own] if own else [])]


def exists(key: str) -> bool:
    """Whether `key` is a dotted path of a verb's specification."""
    classes: list[type] = list(VERBS.values())
    for name in TYPED.get(key, key).split("."):
        found = [field_types(cls)[name] for cls in classes if name in field_types(cls)]
        if not found:
            return False
        if any(get_origin(hint) is dict for hint in found):
            return True  # by names of the user's model
        classes = [cls for hint in found for cls in specs_of(name, hint)]
        classes = [cls for cls in classes if dataclasses.is_dataclass(cls)]
    return True


NOT_OURS = {"objective.floor", "objective.flor", "floor", "alpha", "beta", "use_cache"}
NOT_OURS |= {"group", "other", "install"}
"""Keys of examples, and names of other people's arguments."""


@pytest.mark.parametrize(("key", "value"), PAIRS, ids=lambda text: str(text)[:30])
def test_a_named_key_exists(key: str, value: str) -> None:
    group = ROOT / "conf" / key
    if key in {*NOT_OURS, PLUGINS} or key.startswith("hydra."):
        return
    if (key, value) == ("objective", "dft"):
        return
    if group.is_dir() and value[:1].islower() and "(" not in value:
        for choice in value.strip("[]").split(","):
            assert (group / f"{choice}.yaml").is_file(), f"{key}={choice} is no option"
    else:
        assert group.is_dir() or exists(key), f"{key} is no key"


def test_keys_are_told_apart() -> None:
    assert exists("callbacks.plateau.min_steps")
    assert not exists("lora.rnak")


LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
PATHS = sorted(
    {
        (page, span)
        for page, text in TEXTS.items()
        for span in spans(text)
        if span.startswith(TOP) and " " not in span
    }
    | {
        (page, os.path.normpath(Path(page).parent / link))
        for page, text in TEXTS.items()
        for link, _ in LINK.findall(text)
        if link
    }
)
"""Page, and a path from the root of the repository that it names or links to."""
TO_BE_WRITTEN = {
    "src/graftlab/objectives/dft.py",
    "conf/objective/dft.yaml",
    "tests/golden/dft.json",
}


@pytest.mark.parametrize(("page", "path"), PATHS)
def test_a_named_path_exists(page: str, path: str) -> None:
    assert path in TO_BE_WRITTEN or (ROOT / path).exists(), f"{page} names {path}"
    assert not (ROOT / path).exists() or path not in TO_BE_WRITTEN


ANCHORS = sorted(
    {
        (page, os.path.normpath(Path(page).parent / link) if link else page, anchor)
        for page, text in TEXTS.items()
        for link, anchor in LINK.findall(text)
        if anchor
    }
)


@pytest.mark.parametrize(("page", "target", "anchor"), ANCHORS)
def test_a_linked_heading_exists(page: str, target: str, anchor: str) -> None:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", TEXTS[target]), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert anchor in slugs, f"{page} links to #{anchor} of {target}"


def test_every_page_is_in_the_table_of_contents() -> None:
    named = {
        os.path.normpath(Path(page).parent / link)
        for page in ("docs/README.md", "docs/reference/README.md")
        for link, _ in LINK.findall(TEXTS[page])
    }
    assert len(named) > 50
    assert set(TEXTS) - named == {"README.md", "docs/README.md"}


def test_the_first_page_is_short_and_starts_with_a_picture() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 200
    first_screen = "\n".join(lines[:20])
    assert {"make train", "make test"} <= set(lines[:20])
    assert "](docs/terminal.svg)" in first_screen


RIDDLES = re.compile(r"\b(doors?|reckon\w*)\b", re.IGNORECASE)
"""For "command line" and "estimate"."""


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_has_plain_words(page: str) -> None:
    assert RIDDLES.findall(FENCE.sub("", TEXTS[page])) == []  # a model may say what it likes
