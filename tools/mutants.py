"""Mutation test of one source file: which small changes to it does no test notice?

Run as:  make mutants FILE=src/graftlab/planning/memory.py
         make mutants FILE=src/graftlab/data/split.py TESTS="tests/data/test_data_source.py"

mutmut (https://mutmut.readthedocs.io) changes one expression at a time in a copy of the repository
under `build/mutants/` and runs the tests until one fails. It changes the bodies of functions and
methods that have no decorator: tables and defaults at the level of a module or a class are not
touched. What survives is printed as a diff: the change is either equivalent or a missing test.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CAUGHT = ("killed", "timeout", "segfault", "suspicious")
"""What mutmut calls mutants under which a test fails, hangs or crashes."""

SETTINGS = """\
[mutmut]
source_paths=src
only_mutate={file}
pytest_add_cli_args=
    -p
    no:cacheprovider
    -p
    no:xdist
pytest_add_cli_args_test_selection=
    {tests}
also_copy=
    {others}
process_isolation=forkserver
track_dependencies=false
use_git_change_detection=false
"""


def tracked() -> list[str]:
    """Files of the working tree that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()})


def make_copy(file: str, tests: Sequence[str]) -> Path:
    """A copy of the working tree with mutmut's settings for one file; its folder."""
    folder = ROOT / "build" / "mutants" / Path(file).with_suffix("").as_posix().replace("/", ".")
    shutil.rmtree(folder, ignore_errors=True)
    names = tracked()
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place)
    others = sorted({name.partition("/")[0] for name in names} - {"src", "tests"})
    settings = SETTINGS.format(file=file, tests="\n    ".join(tests), others="\n    ".join(others))
    (folder / "setup.cfg").write_text(settings, encoding="utf-8")
    return folder


def mutmut(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of mutmut's commands in the copy."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "mutmut", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )


def verdicts(folder: Path) -> dict[str, str]:
    """Mutant -> what became of it."""
    lines = mutmut(folder, "results", "--all", "true").stdout.splitlines()
    return dict(line.strip().split(": ", 1) for line in lines if ": " in line)


def main(words: Sequence[str] | None = None) -> int:
    """Mutate, test, print survivors and the share caught; 1 where mutmut could not run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="a file below src/graftlab")
    parser.add_argument("tests", nargs="*", help="tests to run; those of its room by default")
    given = parser.parse_args(words)
    file = Path(given.file).resolve().relative_to(ROOT).as_posix()
    tests = given.tests or [f"tests/{Path(file).parts[2]}"]
    folder = make_copy(file, tests)
    told = mutmut(folder, "run", "--max-children", "1").stdout
    found = verdicts(folder)
    if not found:
        print(told.replace("\r", "\n"))
        return 1
    for mutant, verdict in found.items():
        if verdict not in CAUGHT:
            print(f"\n{verdict}: {mutant}\n{mutmut(folder, 'show', mutant).stdout.rstrip()}")
    counts = Counter(found.values())
    caught = sum(counts[name] for name in CAUGHT)
    said = ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common())
    print(f"\n{file}: {caught} of {len(found)} caught ({caught / len(found):.0%}): {said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
