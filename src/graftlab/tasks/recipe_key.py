"""What decides a prepared data set, as one hash: inputs by content, parameters, frames, code.

The key stands in the manifest and names the folder in the cache. Another place or another time
changes nothing; another byte of an input, another parameter or another version does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab import __version__
from graftlab.files.paths import portable
from graftlab.recipes.sources import fingerprint

if TYPE_CHECKING:
    from graftlab.tasks.prepare import PrepareSpec

LIBRARIES = ("rensa", "HanTa")
"""Their versions decide, too: hashes of near-duplicates, and parts of speech."""


def key_of(spec: PrepareSpec) -> str:
    """The key of what `spec` makes, 32 hex digits; its inputs are read whole, once a process.

    Raises ConfigError or ModelError where an input, a frame or a teacher is missing.
    """
    from graftlab.registry import dump

    decisive = {name: value for name, value in dump(spec).items() if name != "out"}
    # A sweep's jobs are given in full what was typed relative to this folder.
    parts = {
        "graftlab": __version__,
        "code": _code_hash(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "parameters": portable(decisive),
        "inputs": {
            name: [[portable({"path": str(path)})["path"], content_hash(path)] for path in paths]
            for name, paths in spec.inputs().items()
        },
        "teaching": _teaching(spec) if spec.taught else None,
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def content_hash(path: Path) -> str:
    """SHA-256 of a file; read again only where size or time of change differ."""
    about = path.stat()
    return _content_hash(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=4096)
def _content_hash(path: Path, size: int, changed: int) -> str:
    return str(fingerprint(path)["sha256"])


def _teaching(spec: PrepareSpec) -> dict[str, Any]:
    """Frames by what they say, and a teacher of ours by what it is."""
    from graftlab.recipes.teachers.base import PromptedTeacher, load_frames
    from graftlab.recipes.teachers.local import LocalTeacher

    teacher = spec.persona.chosen_teacher()
    frames = {"persona": load_frames("persona.frames", spec.persona.frames)}
    if isinstance(teacher, PromptedTeacher):
        frames["teacher"] = teacher.frames()
    told = {
        place: {name: dataclasses.asdict(frame) for name, frame in found.items()}
        for place, found in frames.items()
    }
    ours = _model(teacher) if isinstance(teacher, LocalTeacher) else None
    return {"frames": told, "model": ours}


def _model(teacher: Any) -> dict[str, Any]:
    from graftlab.adapters.artifact import find_artifact
    from graftlab.models.fingerprint import fingerprint as of_model

    folder = Path(teacher.model).expanduser() if teacher.model else None
    named = teacher.adapter
    adapter = find_artifact(named).require_adapter() if named else None
    weights = sorted(path for path in adapter.path.glob("*") if path.is_file()) if adapter else []
    if adapter is not None and adapter.path.is_file():
        weights = [adapter.path]
    return {
        "base": of_model(folder) if folder is not None and folder.is_dir() else teacher.model,
        "adapter": [content_hash(path) for path in weights],
    }


@cache
def _code_hash() -> str:
    """The recipes' own code: a changed rule is another data set, version or not."""
    room = Path(__file__).parents[1] / "recipes"
    digest = hashlib.sha256()
    for source in sorted(room.rglob("*.py")):
        digest.update(source.relative_to(room).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
