"""`plugins=` imports the modules that it names: the user's own ones, and no others beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from graftlab import plugins, registry
from hostile import Attack
from training_spec import small_spec

HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
from graftlab.objectives.base import Objective
from graftlab.registry import choice
if TYPE_CHECKING:
    from pathlib import Path
"""
TERMS = """
    def terms(self, policy, batch):
        return {"loss": policy.nll(batch).sum()}
"""
MARK = "@dataclass(kw_only=True, slots=True)\n"


@pytest.fixture(autouse=True)
def kept_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Classes, modules and variables as they were."""
    monkeypatch.setattr(plugins, "_FINDER", plugins._Named())
    for name in (plugins.PLUGINS, plugins.PLUGIN_PATH):
        monkeypatch.setenv(name, "")
    modules, finders = set(sys.modules), list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for own in registry._GROUPS.values():
        own.classes = {n: c for n, c in own.classes.items() if c.__module__.startswith("graftlab.")}
    for name in set(sys.modules) - modules:
        if "/options/" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def line(*words: str) -> list[str]:
    return ["train", "--config-dir", "options", *words]


def add(attack: Attack, name: str, body: str) -> None:
    """A plug-in `name` with an option of its name."""
    attack.write(f"options/{name}.py", HEAD + body)
    attack.write(
        f"options/objective/{name}.yaml", f"defaults:\n  - /schema/objective/{name}@_here_\n"
    )


@pytest.mark.parametrize(
    ("module", "saying"),
    [
        ("json", "json is a module of Python's own"),
        ("antigravity", "antigravity is a module of Python's own"),
        ("__main__", "a module of Python's own"),
        ("logging", "logging is a module of Python's own"),
        ("graftlab.cli", "graftlab itself"),
        ("yaml", "before"),
        ("objective", "No module named 'objective'"),
        ("leaves", "leaves.py:1: SystemExit: 0"),
        ("garbled", "garbled.py:1: SyntaxError"),
        ("needs", "plugins=[needs,helper]"),
    ],
)
def test_a_module_that_is_not_the_users(attack: Attack, module: str, saying: str) -> None:
    for name in ("logging", "yaml", "helper"):
        attack.write(f"options/{name}.py", f"open({str(attack.marker)!r}, 'w')\n")
    attack.write("options/objective/some.yaml", "{}\n")
    attack.write("options/leaves.py", "raise SystemExit(0)\n")
    attack.write("options/garbled.py", "def x(:\n")
    attack.write("options/needs.py", "import helper\n")
    attack.refused(*line(f"plugins=[{module}]"), saying=saying)


@pytest.mark.parametrize(
    ("name", "body", "saying"),
    [
        (
            "taken",
            f"@choice('distill')\n{MARK}class Mine(Objective):\n    ''''''{TERMS}",
            "taken.Mine: objective=distill is graftlab.objectives.distill.Distill already",
        ),
        ("ungrouped", f"@choice('x')\n{MARK}class Mine:\n    ''''''", "inherits none of"),
        (
            "swapped",
            f"{MARK}@choice('swapped')\nclass Mine(Objective):\n    gamma: float = 1.0\n{TERMS}",
            "@choice stands above @dataclass",
        ),
        (
            "named",
            f"@choice('../X')\n{MARK}class Mine(Objective):\n    ''''''{TERMS}",
            "a name is made of",
        ),
        (
            "marked",
            f"@choice('marked')\n{MARK}class Mine(Objective):\n    choice: str = ''\n{TERMS}",
            "no key may be called `choice`",
        ),
        (
            "mutable",
            f"@choice('mutable')\n{MARK}class Mine(Objective):\n    words: list = []\n{TERMS}",
            "options/mutable.py:10: ValueError: mutable default",
        ),
        (
            "hinted",
            f"@choice('hinted')\n{MARK}class Mine(Objective):\n    at: Path | None = None\n{TERMS}",
            "hinted.Mine: name 'Path' is not defined",
        ),
        (
            "odd",
            f"@choice('odd')\n{MARK}class Mine(Objective):\n    at: set[int] = ()\n{TERMS}",
            "odd.Mine.at: ",
        ),
        (
            "raising",
            f"@choice('raising')\n{MARK}class Mine(Objective):\n    ''''''\n"
            f"    def __post_init__(self):\n        raise KeyError('why')\n{TERMS}",
            "options/raising.py:14: KeyError: 'why'",
        ),
    ],
)
def test_a_class_that_cannot_be_chosen(attack: Attack, name: str, body: str, saying: str) -> None:
    add(attack, name, body)
    attack.refused(*line(f"plugins=[{name}]", f"objective={name}"), saying=saying)


def test_a_name_is_taken_before_its_class_is_imported(attack: Attack) -> None:
    """graftlab's choices are imported when they are asked for; a plug-in does not come first."""
    mine = f"@choice('distill')\n{MARK}class Mine(Objective):\n    ''''''{TERMS}"
    attack.write("options/first.py", HEAD + mine)
    code = "import sys; from graftlab.plugins import load_plugins; from pathlib import Path\n"
    code += "from graftlab.objectives import base\n"
    code += "load_plugins(['first'], folders=[Path('options')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "objective=distill is graftlab.objectives.distill.Distill already" in done.stderr


def test_what_lies_beside_a_plugin_is_not_imported(attack: Attack) -> None:
    """Hydra imports every `hydra_plugins`, and others look for packages that may be missing."""
    add(attack, "good", f"@choice('good')\n{MARK}class Mine(Objective):\n    ''''''{TERMS}")
    mark = f"open({str(attack.marker)!r}, 'w')\n"
    for folder in ("options/", ""):
        attack.write(f"{folder}hydra_plugins/evil.py", mark)
        attack.write(f"{folder}flash_attn.py", mark)
    knock = attack.knock(*line("plugins=[good]", "objective=good", "--cfg", "job"))
    assert knock.code == 0, knock.err
    assert not attack.marker.exists()
    with pytest.raises(ModuleNotFoundError):
        __import__("flash_attn")


def test_a_child_imports_nothing_of_the_current_folder(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftlab.process import prepare_process

    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.delenv("PYTHONSAFEPATH")
    attack.write("json.py", f"open({str(attack.marker)!r}, 'w')\n")
    prepare_process()
    source = str(Path(plugins.__file__).parents[1])
    child = [sys.executable, "-m", "graftlab.training", "nowhere.json"]
    done = subprocess.run(
        child, env=os.environ | {"PYTHONPATH": source}, capture_output=True, check=False
    )
    assert done.returncode == 1 or done.returncode == 2, done.stderr
    assert not attack.marker.exists()


def test_the_process_that_measures_a_sweep_imports_it_too(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Specs are sent there whole, before anything of theirs is asked for."""
    from graftlab.sweeps import step_counts

    add(attack, "sent", f"@choice('sent')\n{MARK}class Mine(Objective):\n    ''''''{TERMS}")
    plugins.load_plugins(["sent"], folders=[attack.folder / "options"])
    monkeypatch.setattr(step_counts, "_may_share", lambda specs: True)  # here, not there
    spec = replace(small_spec(attack.folder), objective=sys.modules["sent"].Mine())
    assert step_counts.lengths_apart([spec, replace(spec, lr=0.5)]) is None
