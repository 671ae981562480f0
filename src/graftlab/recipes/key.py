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
from typing import Any

from graftlab import __version__
from graftlab.files.paths import portable
from graftlab.recipes.rewriters.base import PromptedRewriter
from graftlab.recipes.rewriters.local import LocalRewriter
from graftlab.recipes.sources import fingerprint
from graftlab.recipes.spec import PrepareSpec
from graftlab.registry import dump

LIBRARIES = ("rensa", "HanTa")
"""Their versions decide, too: hashes of near-duplicates, and parts of speech."""


def key_of(spec: PrepareSpec) -> str:
    """The key of what `spec` makes, 32 hex digits; its inputs are read whole, once a process.

    Raises ConfigError or ModelError where an input, a frame or a rewriter's model is missing.
    """
    decisive = {name: value for name, value in dump(spec).items() if name != "out"}
    # A sweep's jobs are given in full what was typed relative to this folder.
    parts = {
        "graftlab": __version__,
        "code": _code_hash(),
        "libraries": {name: library_version(name) for name in LIBRARIES},
        "parameters": portable(decisive),
        "inputs": {
            name: [[portable({"path": str(path)})["path"], content_hash(path)] for path in paths]
            for name, paths in spec.inputs().items()
        },
        "pairs": _pairs(spec) if spec.makes_pairs else None,
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


def _pairs(spec: PrepareSpec) -> dict[str, Any]:
    """Frames by what they say, and a rewriter's model by what it is."""
    frames = spec.persona.loaded_frames()
    rewriter = spec.asked_rewriter
    if isinstance(rewriter, PromptedRewriter):
        frames["rewriter"] = rewriter.frame()
    told = {name: dataclasses.asdict(frame) for name, frame in frames.items()}
    model = _model(rewriter) if isinstance(rewriter, LocalRewriter) else None
    return {"frames": told, "model": model}


def _model(rewriter: LocalRewriter) -> dict[str, Any]:
    from graftlab.adapters.artifact import find_artifact
    from graftlab.models.fingerprint import fingerprint as of_model

    folder = Path(rewriter.model).expanduser() if rewriter.model else None
    named = rewriter.adapter
    adapter = find_artifact(named).require_adapter() if named else None
    weights = sorted(path for path in adapter.path.glob("*") if path.is_file()) if adapter else []
    if adapter is not None and adapter.path.is_file():
        weights = [adapter.path]
    return {
        "base": of_model(folder) if folder is not None and folder.is_dir() else rewriter.model,
        "adapter": [content_hash(path) for path in weights],
    }


@cache
def _code_hash() -> str:
    """The recipes' own code: a changed rule is another data set, version or not."""
    room = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(room.rglob("*.py")):
        digest.update(source.relative_to(room).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def library_version(name: str) -> str | None:
    """The version that is installed; None without the library."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
