"""The house rules: who may import whom, what stays light, how long a file gets."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "graftlab"
FILES = sorted(PACKAGE.rglob("*.py"))

ORDER = [
    *(
        {name}
        for name in ("errors", "types", "terminal", "progress", "process", "parent_watch", "files")
    ),
    *(
        {name}
        for name in (
            "parent_watch",
            "files",
            "caches",
            "registry",
            "machine",
            "statistics",
            "pages",
            "text",
        )
    ),
    *({"data"}, {"packing"}, {"models", "adapters"}, {"objectives"}, {"generation"}),
    *({"tracking"}, {"recipes"}, {"training"}, {"exports"}, {"planning"}, {"sweeps"}),
    *({"reports"}, {"apple"}, {"tasks"}, {"config", "door", "cli", "__main__"}),
]
"""Lower rooms never import from higher ones (at run time; type hints may look anywhere)."""

ONLY_IN = {
    "lightning": ("training/",),
    "hydra": ("config.py", "door/"),
    "omegaconf": ("config.py", "door/"),
    "wandb": ("tracking/wandb_server.py", "tracking/wandb_tracker.py"),
    "submitit": ("sweeps/launchers/slurm.py", "sweeps/station.py"),
    "ray": ("sweeps/launchers/ray.py",),
    "optuna": ("reports/", "sweeps/study.py"),
    "llguidance": ("text/json_schema.py",),
    "jsonschema": ("text/json_schema.py", "text/json_patterns.py"),
    "plotly": ("reports/page/",),
    "mlx": ("exports/mlx.py",),
    "mlx_lm": ("exports/mlx.py",),
    "coremltools": ("exports/",),
}
"""Where a package may be imported at all."""

LONGEST = 300

LIGHT = [
    *("graftlab.tasks.export", "graftlab.exports.targets"),
    *("graftlab.cli", "graftlab.tasks.train", "graftlab.tasks.report", "graftlab.registry"),
    *("graftlab.reports.gather", "graftlab.reports.compare", "graftlab.reports.page"),
    *("graftlab.sweeps.search", "graftlab.door.sweep", "graftlab.sweeps.run"),
    "graftlab.door.toolkit.answer",
]
"""Modules whose import loads nothing heavy."""


def room(module: str) -> int:
    name = module.split(".")[1] if "." in module else "types"
    return next(index for index, rooms in enumerate(ORDER) if name in rooms)


def imports(path: Path) -> list[str]:
    """Modules imported anywhere in a file but under TYPE_CHECKING."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downwards(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    own = 0 if parts[1] == "__init__" else room(".".join(parts))
    for module in imports(path):
        if module.startswith("graftlab."):
            assert room(module) <= own, f"{name_of(path)} imports {module}, which stands above it"
        for package, places in ONLY_IN.items():
            if module.split(".")[0] == package:
                assert name_of(path).startswith(places), f"{package} in {name_of(path)}"


def test_the_rooms_are_all_there():
    """Guards the test above: a new folder must be given its place."""
    rooms = {name for rooms in ORDER for name in rooms}
    present = {p.stem if p.suffix else p.name for p in PACKAGE.iterdir()}
    assert present - {"__init__", "__pycache__", "assets", "py"} - rooms == set()
    assert len(FILES) > 60


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_say_what_they_are_and_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{name_of(path)} has no module docstring"
    assert len(text.splitlines()) <= LONGEST


@pytest.mark.parametrize("module", LIGHT)
def test_the_door_stays_light(module):
    heavy = ["torch", "lightning", "transformers", "peft", "wandb", "numpy", "rich", "hydra"]
    heavy += ["plotly", "optuna", "sklearn", "pyarrow", "submitit", "ray", "tamm"]
    heavy += ["llguidance", "jsonschema"]
    program = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
