"""Offline W&B runs, uploaded later by `wandb sync`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.tracking.wandb import UNSENT
from graftlab.tracking.wandb_server import wandb_key


def offline_runs(folders: Sequence[Path]) -> list[Path]:
    """The W&B folders of these run folders that were offline or not sent whole, oldest first."""
    found = []
    for folder in (folder / "wandb" for folder in folders):
        notes = folder / UNSENT
        unsent = notes.read_text(encoding="utf-8").split() if notes.is_file() else []
        found += [path for path in sorted(folder.glob("run-*")) if path.name in unsent]
        found += sorted(folder.glob("offline-run-*"))
    return found


def upload(folders: Sequence[Path]) -> int:
    """Upload what `wandb` has not uploaded before; returns the number of offline folders.

    Raises ConfigError without a key, without anything to upload, or when `wandb sync` fails.
    """
    found = offline_runs(folders)
    if not found:
        raise ConfigError("sync=true: these runs left no offline W&B files, as logger=wandb does.")
    if not wandb_key():
        raise ConfigError(
            f"sync=true: {len(found)} offline W&B runs cannot be uploaded without a key: run "
            "`wandb login`, or set WANDB_API_KEY."
        )
    # Its command line is what W&B documents; the function behind it moves between versions.
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, found)]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ConfigError(f"sync=true: `wandb sync` ended with exit code {code}; see above.")
    return len(found)
