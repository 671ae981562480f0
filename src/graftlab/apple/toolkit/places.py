"""Where the toolkit's assets lie, and which adapter or draft the name of a checkpoint means.

The toolkit writes adapter-epoch{N}.pt, adapter-final.pt and draft-model-final.pt into one folder. A
run of ours is a folder of its own in it, and the names are found there, too:

    checkpoints/                      --checkpoint-dir
    ├── adapter/                      the run of train-adapter: adapter/, checkpoints/ ...
    ├── draft-model/                  the run of train-draft-model
    └── adapter-epoch3.pt ...         linked from adapter/checkpoints/ when the run ends
"""

from __future__ import annotations

import os
from pathlib import Path

from graftlab.apple.toolkit.flags import MISSING, Values
from graftlab.errors import ConfigError, did_you_mean
from graftlab.files.reading import UnreadableError, read_json
from graftlab.files.writing import atomic_file, write_json
from graftlab.terminal import printable

ASSETS = "GRAFTLAB_AFM_ASSETS"
ADAPTER_RUN, DRAFT_RUN = "adapter", "draft-model"
BEST = "adapter-best.pt"
"""Not one of the toolkit's names, but people write it: the best by validation loss."""
DRAFT = "draft-model-final.pt"
LINKED = "linked.json"
"""In the run folder: which files were linked beside it."""


def found_assets(values: Values) -> str | None:
    """The toolkit's assets folder, as said or in the current folder; None where it is neither."""
    said = values.get("assets") or os.environ.get(ASSETS)
    return said or ("assets" if Path("assets", "base-model.pt").is_file() else None)


def assets(values: Values) -> str:
    """The toolkit's assets folder. Raises ConfigError saying where it was looked for."""
    if (found := found_assets(values)) is not None:
        return found
    if MISSING in values:
        return "ASSETS"
    raise ConfigError(
        "Where are the toolkit's assets (base-model.pt, tokenizer.model)? Give --assets DIR, set "
        f"${ASSETS}, or start in the toolkit's folder. --model afm-mini tries this without them."
    )


def adapter_at(path: str, values: Values) -> str:
    """What is handed on as `adapter=`. Raises ConfigError telling which checkpoints there are."""
    place = Path(path).expanduser()
    run = place.parent / ADAPTER_RUN
    if not (run / "run.yaml").is_file() and place.parent.name == "checkpoints":
        run = place.parent.parent
    own = run / "checkpoints" / place.name
    if own.is_file() and (not place.exists() or own.samefile(place)):
        return str(own)  # beside its run.yaml, which knows the base
    if not place.exists() and place.name == BEST and (run / "adapter").is_dir():
        return str(run)
    return _existing(place, path, values)


def draft_at(path: str, values: Values) -> str:
    """What is handed on as `draft=`. Raises ConfigError telling which checkpoints there are."""
    place = Path(path).expanduser()
    run = place.parent / DRAFT_RUN
    if place.name == DRAFT and (run / "adapter").is_dir():
        return str(run)
    return _existing(place, path, values)


def knows_its_base(adapter: str) -> bool:
    """Whether a run of ours says which base an adapter belongs to."""
    place = Path(adapter)
    folders = (place, place / "adapter", place.parent, place.parent.parent)
    return any((folder / "run.yaml").is_file() for folder in folders)


def _existing(place: Path, path: str, values: Values) -> str:
    if place.exists() or MISSING in values:
        return path
    if not place.parent.is_dir():
        raise ConfigError(f"there is no checkpoint {path}: no folder {place.parent}.")
    patterns = ("*.pt", f"{ADAPTER_RUN}/checkpoints/*.pt")
    names = sorted({file.name for each in patterns for file in place.parent.glob(each)})
    there = f" There are: {', '.join(names)}." if names else " There is no .pt file in that folder."
    raise ConfigError(f"there is no checkpoint {path}.{did_you_mean(place.name, names)}{there}")


def hand_over(folder: Path, run: Path) -> list[Path]:
    """Link the run's toolkit checkpoints into `folder`, as the toolkit would have left them.

    A file of that name which is of another training stays as it is.
    """
    linked, ours = [], linked_before(run)
    for file in sorted((run / "checkpoints").glob("*.pt")):
        target = folder / file.name
        if target.exists() and target.samefile(file):
            continue
        if os.path.lexists(target) and _stamp(target) != ours.get(target.name):
            print(printable(f"! {target} is of another training and stays; this one is {file}"))
            continue
        with atomic_file(target) as draft:
            try:
                os.link(file, draft)
            except OSError:  # a file system without hard links
                draft.symlink_to(file.resolve())
        linked.append(target)
    if linked:
        stamps = {target.name: _stamp(target) for target in linked}
        write_json(run / LINKED, {**ours, **stamps})
    return linked


def linked_before(run: Path) -> dict[str, list[int]]:
    """What an earlier start has linked: name -> the file's size and time."""
    try:
        known = read_json(run / LINKED)
    except (OSError, UnreadableError):
        return {}
    return known if isinstance(known, dict) else {}


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
