"""Disk, cache, and the servers that a run may ask."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from graftlab.caches import default_cache
from graftlab.doctor.finding import Finding
from graftlab.errors import ConfigError
from graftlab.machine import GIB
from graftlab.process import hub_url

LITTLE = 5 * GIB
"""Less free disk than this is soon full of checkpoints."""
WAIT_SECONDS = 3.0


def check_disk() -> Iterator[Finding]:
    """Free space and rights, here and in the cache."""
    yield _folder("disk here", Path.cwd(), "free some: hydra.run.dir=DIR puts runs elsewhere")
    try:
        cache = default_cache()
    except ConfigError as error:
        yield Finding("cache", "none", str(error))
        return
    yield _folder(f"cache {cache}", cache, "free some, or let GRAFTLAB_CACHE name another folder")


def _folder(subject: str, folder: Path, cure: str) -> Finding:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        return Finding(subject, f"{there} cannot be written", cure)
    free = shutil.disk_usage(there).free
    return Finding(subject, f"{free / GIB:.1f} GiB free", None if free >= LITTLE else cure)


def check_servers() -> Iterator[Finding]:
    """W&B and the Hugging Face hub: whether they are wanted, and whether they answer."""
    from graftlab.tracking.wandb_server import Lookup, wandb_key

    mode = os.environ.get("WANDB_MODE", "online")
    key = wandb_key()
    if key is None or mode != "online":
        why = f"$WANDB_MODE is {mode}" if mode != "online" else "no key (wandb login)"
        yield Finding("W&B", f"{why}: runs are kept in wandb/ and sent by wandb sync")
    else:
        reason = Lookup(key).obstacle()
        cure = "wandb login, or go on: runs are then kept in wandb/ and sent by wandb sync"
        yield Finding("W&B", reason or "answers, with your key", cure if reason else None)
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        yield Finding("hub", "$HF_HUB_OFFLINE: only models that are here already")
        return
    url = hub_url()
    reason = _connects(url)
    cure = f"without it, model=hf model.path=DIR takes a folder that was fetched ({url})"
    yield Finding("hub", reason or f"{url} answers", cure if reason else None)


def _connects(url: str) -> str | None:
    """Why no connection to the host of `url` comes about; None when one does."""
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    begin = time.monotonic()
    try:
        socket.create_connection((parts.hostname or "", port), timeout=WAIT_SECONDS).close()
    except (OSError, ValueError) as error:  # ValueError: a host's name that cannot be one
        said = getattr(error, "strerror", None) or error
        seconds = time.monotonic() - begin
        return f"{parts.hostname} cannot be reached ({said}; {seconds:.0f} s)"
    return None
