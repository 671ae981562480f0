"""Whichever way training starts, threads and kernels are set before torch is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slower import mostly_slow

WATCH = """
import json, os, sys

class Watch:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            names = ("GOMP_SPINCOUNT", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
            print(json.dumps([os.environ.get(name) for name in names]), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
"""
COMMAND_LINE = "from graftlab.cli.main import main; main(['train', 'logger=none', 'trainer=cpu'])"
SPEC = """
from pathlib import Path
from graftlab.registry import dump
from graftlab.cli.compose import build, compose
spec = build(compose("train", ["logger=none", "trainer=cpu", "run_dir=run"])).training()
"""
SCRIPT = SPEC + "from graftlab.training.start import run; run(spec)"
RANK = SPEC + (
    "Path('spec.json').write_text(json.dumps(dump(spec)))\n"
    "from graftlab.training.__main__ import main; main(Path('spec.json'))"
)


@pytest.mark.parametrize(
    "program", [COMMAND_LINE, SCRIPT, RANK], ids=["command line", "script", "rank"]
)
@pytest.mark.parametrize("given", mostly_slow([None, "7"], "7"))
def test_every_way_in_sets_them_and_keeps_what_was_given(
    program: str, given: str | None, tmp_path: Path
) -> None:
    names = ("GOMP_SPINCOUNT", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    if given is not None:
        environment |= dict.fromkeys(names, given)
    done = subprocess.run(
        [sys.executable, "-c", WATCH + program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ([given] * 2 if given else ["3000", "128"])


ARRIVED = """
import gc, sys

class Watch:
    def find_spec(self, name, path, target=None):
        if name == "graftlab.training.run":
            print("collects:", gc.isenabled(), flush=True)
            import os
            os._exit(0)

sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize(("program", "collects"), [(COMMAND_LINE, False), (SCRIPT, True)])
def test_only_programs_of_ours_import_without_collecting(
    program: str, collects: bool, tmp_path: Path
) -> None:
    """In a script's process there may be garbage that is its own."""
    done = subprocess.run(
        [sys.executable, "-c", ARRIVED + "import json\n" + program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == f"collects: {collects}", done.stderr


def test_what_is_imported_for_good_is_never_looked_at_again() -> None:
    program = (
        "import gc; from graftlab.process import import_for_good\n"
        "passes = []; gc.callbacks.append(lambda phase, info: passes.append(phase))\n"
        "import_for_good('transformers.models.llama.modeling_llama')\n"
        "during, frozen = len(passes), gc.get_freeze_count()\n"
        "import_for_good('transformers.models.llama.modeling_llama'); gc.collect()\n"
        "print(during, frozen, gc.get_freeze_count() == frozen, gc.isenabled(), len(passes) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    during, frozen, *same = done.stdout.split()
    assert during == "0", done.stderr
    assert int(frozen) > 50_000
    assert same == ["True", "True", "True"]
