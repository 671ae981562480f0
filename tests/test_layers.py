"""The house rules: who may import whom, what stays light, how long a file gets."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "graftlab"
FILES = sorted(PACKAGE.rglob("*.py"))

ORDER = [
    *("errors", "hints", "types", "columns", "terminal", "console", "progress", "process"),
    *("parent_watch", "limits", "files", "caches", "plugins", "registry", "schemas", "commands"),
    *("machine", "statistics", "pages", "text", "data", "packing", "models", "adapters"),
    *("objectives", "generation", "chat", "serving", "tracking", "recipes", "training"),
    *("evaluation", "exports", "planning", "sweeps", "reports", "tuning", "apple", "doctor"),
    *("verbs", "cli", "__main__"),
]
"""Rooms from the ground up: each imports from those before it alone, type hints included."""

ONLY_IN = {
    "lightning": ("training/",),
    "hydra": ("cli/"),
    "omegaconf": ("cli/"),
    "wandb": ("tracking/wandb_server.py", "tracking/wandb.py"),
    "submitit": ("sweeps/launchers/slurm.py", "sweeps/node_agent.py"),
    "ray": ("sweeps/launchers/ray.py",),
    "optuna": ("reports/", "sweeps/study.py", "sweeps/search.py"),
    "llguidance": ("text/json_schema.py",),
    "jsonschema": ("text/json_schema.py", "text/json_patterns.py"),
    "plotly": ("reports/page/",),
    "mlx": ("exports/mlx.py", "exports/mlx_quantized.py", "exports/runtimes/mlx.py"),
    "mlx_lm": ("exports/mlx.py", "exports/mlx_quantized.py", "exports/runtimes/mlx.py"),
    "xllamacpp": ("exports/runtimes/llama_cpp.py",),
    "coremltools": ("apple/exports/",),
    "starlette": ("serving/app.py",),
    "uvicorn": ("serving/server.py",),
}
"""Where a package may be imported at all."""

LONGEST = 300

LIGHT = [
    *("graftlab.verbs.export", "graftlab.exports.mlx", "graftlab.exports.merged"),
    *("graftlab.exports.vllm", "graftlab.exports.hub", "graftlab.exports.gguf"),
    *("graftlab.exports.gguf_lora", "graftlab.evaluation.plugin"),
    *("graftlab.exports.ollama", "graftlab.exports.modelfile"),
    *("graftlab.cli", "graftlab.verbs.train", "graftlab.verbs.report", "graftlab.registry"),
    *("graftlab.reports.gather", "graftlab.reports.compare", "graftlab.reports.page"),
    *("graftlab.sweeps.search", "graftlab.cli.sweep", "graftlab.sweeps.run"),
    *("graftlab.apple.plugin", "graftlab.apple.toolkit.answer"),
]
"""Modules whose import loads nothing heavy."""


MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FILES
}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file names: imported anywhere, for types alone, or to be started."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and node.value in MODULES:
            found.add(str(node.value))  # python -m graftlab.training
    return frozenset(found)


def files_named(path: Path) -> set[str]:
    """The modules of graftlab among `imports`, without the package itself and names in them."""
    own = {name for name, file in MODULES.items() if file == path}
    found = set()
    for module in imports(path):
        while module and module not in MODULES:
            module = module.rpartition(".")[0]
        found.add(module)
    return found - own - {"", "graftlab"}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(module: str) -> int:
    return ORDER.index(module.split(".")[1])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downwards(path):
    own = next(name for name, file in MODULES.items() if file == path)
    for module in files_named(path):
        assert own == "graftlab" or room(module) <= room(own), f"{own} names {module}, above it"
    for module in imports(path):
        for package, places in ONLY_IN.items():
            if module.split(".")[0] == package:
                assert name_of(path).startswith(places), f"{package} in {name_of(path)}"


def test_no_files_import_each_other():
    """Not even inside functions or for type hints: any file can be read before those it serves."""
    left = {name: files_named(path) for name, path in MODULES.items()}
    before = len(left) + 1
    while len(left) < before:  # without those that need, or serve, none of the others
        before = len(left)
        needed = {other for others in left.values() for other in others}
        left = {n: others & left.keys() for n, others in left.items() if n in needed}
        left = {n: others for n, others in left.items() if others}
    assert not left, f"circles among {left}"


APPLE = re.compile(r"(?<![a-z])(apple|afm|tamm|fmadapter|toolkit)", re.IGNORECASE)
ALLOWED = {
    "exports/mlx.py": ["Apple silicon"],  # a processor
    "pages/style.css": ["-apple-system"],  # a typeface
}
"""Lines outside apple/ that may name what lies in it."""


def test_apples_model_is_named_by_nobody():
    """What lies in apple/ registers itself; no other room, and no word elsewhere, speaks of it."""
    found, kept = [], set()
    for path in sorted(PACKAGE.rglob("*")):
        name = name_of(path)
        if path.suffix not in (".py", ".css", ".js", ".html", ".yaml", ".jinja", ".json"):
            continue
        if name.startswith("apple/"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if APPLE.search(line) is None:
                continue
            if any(words in line for words in ALLOWED.get(name, [])):
                kept.add(name)
            else:
                found.append(f"{name}:{number}: {line.strip()}")
    assert not found, "\n".join(found)
    assert kept == ALLOWED.keys(), "the list above is no longer than it must be"
    inside = [path for path in FILES if name_of(path).startswith("apple/")]
    assert sum(APPLE.search(path.read_text(encoding="utf-8")) is not None for path in inside) > 20


def test_the_rooms_are_all_there():
    """Guards the tests above: a new folder must be given its place."""
    present = {name.split(".")[1] for name in MODULES if "." in name}
    assert present == set(ORDER)
    assert len(ORDER) == len(set(ORDER))
    assert sum(len(files_named(path)) for path in FILES) > 1000


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_say_what_they_are_and_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(parsed(path)), f"{name_of(path)} has no module docstring"
    assert len(text.splitlines()) <= LONGEST


def test_the_door_stays_light():
    heavy = ["torch", "lightning", "transformers", "peft", "wandb", "numpy", "rich", "hydra"]
    heavy += ["plotly", "optuna", "sklearn", "pyarrow", "submitit", "ray", "tamm"]
    heavy += ["llguidance", "jsonschema", "starlette", "uvicorn"]
    program = (
        "import importlib, sys\n"
        f"for module in {LIGHT}:\n"
        "    importlib.import_module(module)\n"
        f"    print(module, [m for m in {heavy} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{module} []" for module in LIGHT], done.stderr
