"""Where code could come in: every call that may run or build what a file says, by the source."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "graftlab"
FILES = sorted(PACKAGE.rglob("*.py"))

OWN_PICKLES = {"recipes/spool.py": "a file without a name, written and read by one process"}
OWN_JSON = {
    "files/reading.py": "the one reader",
    "adapters/base.py": "the header of a file that was just written",
    "adapters/peft_adapter.py": "what json.dumps gave",
    "data/answers.py": "a text that was read within the limits before",
    "apple/files.py": "tamm's reader, after ours has judged the file",
    "recipes/report/row_sampling.py": "rows that prepare has written",
    "sweeps/watcher.py": "words of a launcher to its process",
    "sweeps/joint_benchmark.py": "words between two processes of one command",
    "text/json_schema.py": "decimals of a text that was read within the limits before",
    "text/pieces.py": "what the tokenizers library gives",
}
"""Files that may call json.loads, and why."""
ROWS = {"data/arrays.py", "data/files.py", "data/shapes.py"}
"""Readers of rows, with limits of their own."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the name it is called by, such as `torch.load`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


IMPORTERS = ("plugins.py", "process.py", "registry.py", "training/__main__.py")
"""Import what the command line allows, what the launching process has named, and what our own code
names (`import_for_good`)."""


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_nothing_that_is_read_can_run() -> None:
    found = [(path, called, call) for path in FILES for called, call in calls(path)]
    assert len(found) > 5_000
    for path, called, call in found:
        name = name_of(path)
        where = f"{name}:{call.lineno}: {called}"
        assert called not in ("eval", "exec", "compile", "__import__"), where
        if called == "torch.load":
            assert keyword(call, "weights_only") == "True", where
        if called in ("np.load", "numpy.load"):
            assert keyword(call, "allow_pickle") == "False", where
        if called.startswith("yaml.") and "load" in called:
            assert name == "files/reading.py", where
        if called in ("pickle.load", "pickle.loads", "pickle.Unpickler"):
            assert name in OWN_PICKLES, where
        if called in ("json.load", "json.loads", "tamm.utils.json.loads"):
            assert name in OWN_JSON or name in ROWS, where
        if called.startswith("Auto") and called.endswith((".from_pretrained", ".from_config")):
            assert keyword(call, "trust_remote_code") is not None, where
        if called == "import_for_good":
            assert isinstance(call.args[0], ast.Constant), where
        if called == "importlib.import_module":
            argument = ast.unparse(call.args[0])
            assert argument.startswith("f'graftlab.verbs.") or name in IMPORTERS, where


@pytest.mark.parametrize("name", ["os", "../os", "graftlab.models.hf", "pages", "", None, 3, "HF"])
def test_a_choice_in_a_file_imports_nothing_but_choices(
    name: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `run.yaml` calls a choice is looked for among graftlab's own modules alone."""
    from graftlab import registry
    from graftlab.errors import ConfigError
    from graftlab.models.base import ModelSpec
    from graftlab.registry import restore

    imported = []

    def note(module: str, real: Callable[[str], object] = importlib.import_module) -> object:
        imported.append(module)
        return real(module)

    monkeypatch.setattr(registry.importlib, "import_module", note)
    with pytest.raises(ConfigError, match="is not one of afm-3b, afm-mini, draft, gguf, hf, tiny"):
        restore(ModelSpec, {"choice": name})  # type: ignore[type-abstract]
    assert all(re.fullmatch(r"graftlab\.(models\.\w+|\w+\.plugin)", module) for module in imported)


@pytest.mark.parametrize(
    "target", ["torch.optim.sys", "torch.optim.lr_scheduler.StepLR", "os.system"]
)
def test_an_optimizer_is_a_class_of_torch_optim(target: str) -> None:
    from graftlab.errors import ConfigError
    from graftlab.training.optimizers.custom import CustomOptimizer

    with pytest.raises(ConfigError):
        CustomOptimizer(target=target).optimizer_class()
